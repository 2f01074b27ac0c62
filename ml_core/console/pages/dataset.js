// A dataset: its versions, and the columns of one with what their values look like.

import { ask, at, controlUrl } from "../core/api.js";
import { bytes, counted, moment, number, percent, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { badge } from "../parts/states.js";

const SHOWN_VERSIONS = 50;
const SHOWN_VALUES = 5;

/** @type {import("../main.js").Page} */
export default {
  title: ({ dataset }) => dataset,

  async load({ params: { tenant, dataset }, query, signal }) {
    const root = `${at("tenants", tenant, "datasets", dataset)}/versions`;
    const [version, versions] = await Promise.all([
      ask("GET", `${root}/${at(query.number ?? "newest")}`, { signal }),
      ask("GET", root, { query: { limit: SHOWN_VERSIONS, include_archived: true }, signal }),
    ]);
    return { version, versions };
  },

  view: ({ version, versions }, { params: { tenant, dataset }, query }) =>
    html` <p class="quiet"><a href="${link(["t", tenant, "datasets"])}">Datasets</a></p>
      <h1 tabindex="-1">${version.reference}</h1>
      <p>
        ${counted(version.row_count, "row")}, ${counted(version.column_count, "column")}, ${bytes(version.size_bytes)},
        <when-time datetime="${version.created_at}"></when-time> <span class="quiet">by ${version.created_by}</span>
        ${version.archived_at && badge("archived")}
      </p>
      <p>
        <a href="${link(["t", tenant, "training"], { dataset: query.number ? version.reference : dataset })}"
          >Train a model on it</a
        >
      </p>
      <section>
        <h2>Columns</h2>
        <div class="scroll" role="region" tabindex="0" aria-label="Columns">
          <table>
            <thead>
              <tr>
                <th scope="col">Column</th>
                <th scope="col">Type</th>
                <th scope="col">Kind</th>
                <th scope="col" class="number">Missing</th>
                <th scope="col" class="number">Distinct</th>
                <th scope="col">Values</th>
              </tr>
            </thead>
            <tbody>
              ${version.profile.columns.map((column) => columnRow(column))}
            </tbody>
          </table>
        </div>
        ${version.profile.sampled_rows < version.row_count && html`<p class="quiet">The profile is of ${number(version.profile.sampled_rows)} sampled rows.</p>`}
      </section>
      <section>
        <h2>Versions</h2>
        <ul class="rows">
          ${versions.items.map(
            (each) =>
              html`<li data-key="version-${each.number}">
                <a
                  href="${link(["t", tenant, "datasets", dataset], { number: String(each.number) })}"
                  ${each.number === version.number && html`aria-current="true"`}
                  >${each.reference}</a
                >
                ${number(each.row_count)} rows <span class="quiet">by ${each.created_by}</span>
                <when-time datetime="${each.created_at}"></when-time> ${each.archived_at && badge("archived")}
              </li>`,
          )}
        </ul>
        ${versions.next_cursor && html`<p class="quiet">The newest ${SHOWN_VERSIONS} are shown.</p>`}
      </section>
      <section>
        <h2>Origin</h2>
        <dl class="facts">
          ${Object.entries(version.source).map(
            ([name, value]) =>
              html`<div>
                <dt>${name}</dt>
                <dd>${shown(value)}</dd>
              </div>`,
          )}
          <div class="wide">
            <dt>sha256</dt>
            <dd><code>${version.digest}</code></dd>
          </div>
        </dl>
        <p>
          <a
            href="${controlUrl(`${at("tenants", tenant, "datasets", dataset)}/versions/${version.number}/content`)}"
            download
            >Download the Parquet file</a
          >
        </p>
      </section>`,
};

/** @param {any} column */
function columnRow(column) {
  const { name, type, kind, count, missing, distinct } = column;
  return html`<tr data-key="column-${name}">
    <th scope="row">${name}</th>
    <td class="quiet">${type}</td>
    <td>${kind ?? "–"}</td>
    <td class="number">${missing ? percent(missing / (count + missing)) : "0"}</td>
    <td class="number">${number(distinct)}</td>
    <td>${valuesView(column)}</td>
  </tr>`;
}

/** @param {any} column */
function valuesView({ kind, values, other, minimum, maximum, mean, edges, bin_counts: counts }) {
  if (minimum !== null) {
    return html`${edges.length > 2 && histogram(edges, counts)}
      <span class="quiet">${rangeText(kind, minimum, maximum, mean)}</span>`;
  }
  const most = values.slice(0, SHOWN_VALUES);
  const rest = values.length - most.length + (other > 0 ? 1 : 0);
  return html`${most.map(([value, rows]) => html`${value} <span class="quiet">${number(rows)}</span> `)}${rest > 0 && "…"}`;
}

/** @param {string} kind @param {number} minimum @param {number} maximum @param {number} mean */
function rangeText(kind, minimum, maximum, mean) {
  if (kind === "datetime") return `${moment(minimum)} to ${moment(maximum)} UTC`;
  return `${number(minimum)} to ${number(maximum)}${kind === "text" ? " characters" : ""}, mean ${number(mean)}`;
}

/** The density of a column's values: the edges are quantiles, so narrow bins are dense. @param {number[]} edges @param {number[]} counts */
function histogram(edges, counts) {
  const range = edges[edges.length - 1] - edges[0];
  const density = counts.map((count, index) => count / Math.max(edges[index + 1] - edges[index], range / 1000));
  const most = Math.max(...density, Number.MIN_VALUE);
  return html`<svg class="histogram" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
    ${density.map((value, index) => {
      const [start, end] = [edges[index], edges[index + 1]].map((edge) => (100 * (edge - edges[0])) / (range || 1));
      const height = (30 * value) / most;
      return html`<rect
        x="${start.toFixed(2)}"
        width="${Math.max(end - start, 0.5).toFixed(2)}"
        y="${(30 - height).toFixed(2)}"
        height="${height.toFixed(2)}"
      ></rect>`;
    })}
  </svg>`;
}
