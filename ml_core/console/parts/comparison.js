// Two versions of a model side by side: metrics with which is better, and what else differs.

import { ApiError, ask, at } from "../core/api.js";
import { number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { metricDiff } from "./metric_diff.js";
import { problem, refusal } from "./states.js";
import { table } from "./table.js";
import { versionField } from "./type_ahead.js";

/**
 * Two versions side by side: those of the address; else the newest beside what is served.
 *
 * @param {string} root The path of the model. @param {string[]} newest Names of its newest versions. @param {any} pointer
 * @param {Record<string, string>} query @param {AbortSignal} signal
 */
export async function comparison(root, newest, pointer, query, signal) {
  const second = query.with ?? newest[0];
  const served = pointer?.version !== second ? pointer?.version : null;
  const first = query.compare ?? served ?? newest.find((each) => each !== second);
  if (!first || !second) return null;
  const path = `${root}/versions/${at(first)}/compare/${at(second)}`;
  const found = await ask("GET", path, { signal }).catch(refusal);
  return { first, second, found };
}

/** @param {{first: string, second: string, found: any}} compared @param {import("../main.js").Context} context */
export function comparisonView({ first, second, found }, { params: { tenant, model } }) {
  const root = at("tenants", tenant, "models", model);
  const choice = (name, label, chosen) => versionField(root, chosen, { name, label, withArchived: true });
  return html`<section id="comparison">
    <h2>Side by side</h2>
    <form class="line" data-action="compare">
      ${choice("compare", "Version", first)}${choice("with", "with", second)}<button type="submit">Compare</button>
    </form>
    ${found instanceof ApiError ? problem(found) : foundView(found, (name) => link(["t", tenant, "models", model, "versions", name]))}
  </section>`;
}

/** @param {any} compared @param {(version: string) => string} address */
function foundView(compared, address) {
  const { version1: first, version2: second } = compared;
  const metrics = Object.entries(compared.metrics).flatMap(([split, of]) =>
    Object.entries(of).map(([name, metric]) => ({
      name: words(name),
      of: split,
      values: [number(metric.version1), metricDiff(metric, second)],
    })),
  );
  const others = ["hyperparameters", "libraries"].flatMap((part) =>
    Object.entries(compared[part]).map(([name, { version1, version2 }]) => ({
      name,
      of: part,
      values: [version1, version2].map((value) => shown(value ?? "–")),
    })),
  );
  const columns = [
    { name: "Metric", isHead: true, cell: ({ name, of }) => html`${name} <span class="quiet">${of}</span>` },
    ...[first, second].map((version, index) => ({
      name: html`<a href="${address(version)}">${version}</a>`,
      look: "value",
      cell: ({ values }) => values[index],
    })),
  ];
  return html`${table("Versions side by side", columns, [...metrics, ...others], ({ name, of }) => `${of}/${name}`)}
    <p class="quiet">${dataText(compared.data)} ${signatureText(compared.signature)}</p>`;
}

/** @param {{same: boolean | null}} data */
const dataText = ({ same }) =>
  same === null
    ? "Whether they saw the same data is not known."
    : same
      ? "They saw the same data."
      : "They saw different data.";

/** @param {{added: string[], removed: string[], changed: string[], same_output: boolean}} signature */
function signatureText({ added, removed, changed, same_output: sameOutput }) {
  const parts = [
    ["Added", added],
    ["Removed", removed],
    ["Changed", changed],
  ].filter(([, names]) => names.length);
  const columns = parts
    .map(([word, names]) => `${word} columns: ${/** @type {string[]} */ (names).join(", ")}.`)
    .join(" ");
  return `${columns || "They take the same columns."} ${sameOutput ? "" : "Their outputs differ."}`;
}
