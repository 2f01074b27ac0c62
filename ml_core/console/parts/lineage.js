// Where a version came from and what came of it, as a graph: datasets and the parent → run → version → children and
// environments. It is a list of steps, which is what a screen reader reads; the lines between them are a picture.

import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";

const MOST = 6;

/** @typedef {ReturnType<typeof html>} Html */
/** @typedef {{kind: string, name: string, address?: string | null, note?: string | null, isHere?: boolean}} Node */

/**
 * @param {any} lineage As the API has it. @param {{environment: string, role: string}[]} uses
 * @param {string} tenant @param {string} model
 */
export function lineageGraph(lineage, uses, tenant, model) {
  const version = (name) => link(["t", tenant, "models", model, "versions", name]);
  const environment = (name) => link(["t", tenant, "models", model], { environment: name });
  const [parent, ...others] = lineage.ancestors;
  const before = others.length ? `made from ${others.slice(0, 3).join(", ")}${others.length > 3 ? ", …" : ""}` : null;
  const made = lineage.children.map((name) => ({ kind: "version", name, address: version(name) }));
  /** @type {[string, Node[]][]} */
  const steps = [
    [
      "Made from",
      [
        ...datasetsOf(lineage, tenant),
        ...(parent ? [{ kind: "version", name: parent, address: version(parent), note: before }] : []),
      ],
    ],
    ["Run", runOf(lineage, tenant)],
    ["Version", [{ kind: "version", name: lineage.version, isHere: true }]],
    [
      "Came of it",
      [
        ...uses.map((use) => ({
          kind: "environment",
          name: use.environment,
          address: environment(use.environment),
          note: use.role,
        })),
        ...shortened(made, () => [version(made[MOST].name), `${counted(made.length - MOST, "further version")}`]),
      ],
    ],
  ];
  const shown = steps.filter(([, nodes]) => nodes.length);
  return html`<ol class="graph" aria-label="Lineage">
    ${shown.map(([name, nodes], index) => step(name, nodes, index && shown[index - 1][1].length))}
  </ol>`;
}

/** The datasets of these bytes; else the bytes. @param {any} lineage @param {string} tenant @returns {Node[]} */
function datasetsOf({ datasets, dataset_digest: registered, data_digest: seen }, tenant) {
  const digest = registered ?? seen;
  const note = registered ? "deleted" : "in memory or a file";
  if (!datasets.length)
    return digest ? [{ kind: registered ? "dataset" : "rows", name: `${digest.slice(0, 12)}…`, note }] : [];
  const address = (reference) => {
    const [name, number] = reference.split("@");
    return link(["t", tenant, "datasets", name], { number });
  };
  return shortened(
    datasets.map((name) => ({ kind: "dataset", name, address: address(name) })),
    () => [null, `${datasets.length - MOST} more of the same bytes`],
  );
}

/** @param {any} lineage @param {string} tenant @returns {Node[]} */
function runOf({ run, run_id: id }, tenant) {
  if (!run) return id ? [{ kind: "run", name: id, note: "deleted" }] : [];
  return [{ kind: run.kind, name: id, address: link(["t", tenant, "runs", id]), note: run.status }];
}

/** @param {Node[]} nodes @param {() => [string | null, string]} rest @returns {Node[]} */
function shortened(nodes, rest) {
  if (nodes.length <= MOST) return nodes;
  const [address, name] = rest();
  return [...nodes.slice(0, MOST), { kind: "and", name, address }];
}

/** @param {string} name @param {Node[]} nodes @param {number} before Nodes of the step before; 0: there is none. */
function step(name, nodes, before) {
  return html`<li data-key="step-${name}">
    ${before > 0 && lines(before, nodes.length)}
    <h3>${name}</h3>
    <ul>
      ${nodes.map(node)}
    </ul>
  </li>`;
}

/** @param {Node} node */
function node({ kind, name, address, note, isHere }) {
  const content = html`<span class="quiet">${kind}</span>
    <b>${name}</b> ${note && html`<span class="quiet">${note}</span>`}`;
  return html`<li class="node ${isHere && "here"}" data-key="${kind}-${name}-${note}">
    ${address ? html`<a href="${address}">${content}</a>` : html`<span ${isHere && html`aria-current="true"`}>${content}</span>`}
  </li>`;
}

/** From each node of a step to each of the next, in a box as high as both. @param {number} before @param {number} after */
function lines(before, after) {
  const heights = (count) => Array.from({ length: count }, (_, index) => (100 * (index + 0.5)) / count);
  return html`<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
    ${heights(before).flatMap((from) =>
      heights(after).map(
        (to) =>
          html`<path
            d="M 0 ${from.toFixed(1)} C 60 ${from.toFixed(1)} 40 ${to.toFixed(1)} 100 ${to.toFixed(1)}"
          ></path>`,
      ),
    )}
  </svg>`;
}
