// Two versions of a model side by side: metrics with which is better, and what else differs.

import { ApiError, ask, at } from "../core/api.js";
import { number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { metricDiff } from "./metric_diff.js";
import { versionField } from "./moves.js";
import { problem, refusal } from "./states.js";

/**
 * Two versions side by side: those of the address; else the newest beside what is served.
 *
 * @param {string} root @param {any[]} versions @param {any} pointer @param {Record<string, string>} query
 * @param {AbortSignal} signal
 */
export async function comparison(root, versions, pointer, query, signal) {
  const second = query.with ?? versions[0]?.version;
  const served = pointer?.version !== second ? pointer?.version : null;
  const first = query.compare ?? served ?? versions.find((each) => each.version !== second)?.version;
  if (!first || !second) return null;
  return ask("GET", `${root}/versions/${at(first)}/compare/${at(second)}`, { signal }).catch(refusal);
}

/** @param {any} compared @param {any} data @param {import("../main.js").Context} context */
export function comparisonView(compared, { versions }, { params: { tenant, model } }) {
  if (compared instanceof ApiError)
    return html`<section>
      <h2>Side by side</h2>
      ${problem(compared)}
    </section>`;
  const { version1: first, version2: second } = compared;
  const address = (name) => link(["t", tenant, "models", model, "versions", name]);
  const names = versions.items.map(({ version }) => version);
  // One that is older than those that are listed may be in the address.
  const choice = (name, label, chosen) =>
    versionField(names.includes(chosen) ? names : [chosen, ...names], chosen, { name, label });
  return html`<section id="comparison">
    <h2>Side by side</h2>
    <form class="line" data-action="compare">
      ${choice("compare", "Version", first)}${choice("with", "with", second)}<button type="submit">Compare</button>
    </form>
    <div class="scroll" role="region" tabindex="0" aria-label="Versions side by side">
      <table>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            <th scope="col" class="number"><a href="${address(first)}">${first}</a></th>
            <th scope="col" class="number"><a href="${address(second)}">${second}</a></th>
          </tr>
        </thead>
        <tbody>
          ${Object.entries(compared.metrics).flatMap(([split, metrics]) =>
            Object.entries(metrics).map(
              ([name, metric]) =>
                html`<tr data-key="${split}/${name}">
                  <th scope="row">${words(name)} <span class="quiet">${split}</span></th>
                  <td class="number">${number(metric.version1)}</td>
                  <td class="value">${metricDiff(metric, second)}</td>
                </tr>`,
            ),
          )}
          ${["hyperparameters", "libraries"].flatMap((part) =>
            Object.entries(compared[part]).map(
              ([name, { version1, version2 }]) =>
                html`<tr data-key="${part}/${name}">
                  <th scope="row">${name} <span class="quiet">${part}</span></th>
                  <td class="value">${shown(version1 ?? "–")}</td>
                  <td class="value">${shown(version2 ?? "–")}</td>
                </tr>`,
            ),
          )}
        </tbody>
      </table>
    </div>
    <p class="quiet">${dataText(compared.data)} ${signatureText(compared.signature)}</p>
  </section>`;
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
