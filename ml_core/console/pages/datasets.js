// The datasets of a tenant; a file becomes another, or the next version of one.

import { ask, at } from "../core/api.js";
import { bytes, number, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { field, linesField, pairsOf } from "../parts/fields.js";
import { archivedLink, badge, button } from "../parts/states.js";
import { openUpload } from "../parts/upload.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Datasets of ${tenant}`,
  load: async () => null,
  view: (_, { params: { tenant }, query, session }) =>
    html`<h1 tabindex="-1">Datasets</h1>
      <div class="buttons">
        ${button({ action: "upload", text: "Upload a file…", refused: session.lacks("train") })}
      </div>
      ${session.lacks("train") && html`<p class="quiet">${session.lacks("train")}</p>`}
      ${archivedLink(["t", tenant, "datasets"], query)}
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    showList(main, {
      label: "Datasets",
      search: "Search datasets",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (dataset) => dataset.dataset_id,
      load: ({ text: name, ...of }) =>
        ask("GET", at("tenants", tenant, "datasets"), {
          query: { ...of, name, include_archived: query.archived && true },
          signal,
        }),
      none: "There is no dataset. Upload a file, or train on one from the command line.",
      columns: [
        {
          name: "Dataset",
          cell: ({ dataset_id: id, newest, archived_at: archivedAt }) => {
            const address = link(["t", tenant, "datasets", id], archivedAt ? { number: String(newest) } : {});
            return html`<a href="${address}">${id}</a> ${archivedAt && badge("archived")}`;
          },
        },
        { name: "Versions", isNumber: true, cell: (dataset) => dataset.versions },
        { name: "Rows", isNumber: true, cell: (dataset) => number(dataset.row_count) },
        { name: "Size", isNumber: true, cell: (dataset) => bytes(dataset.size_bytes) },
        { name: "Newest", cell: (dataset) => html`<when-time datetime="${dataset.created_at}"></when-time>` },
        { name: "By", cell: (dataset) => html`<span class="quiet">${dataset.created_by}</span>` },
      ],
    });
  },

  actions: {
    upload(_, __, { params: { tenant } }) {
      openUpload({
        title: `Upload a dataset to ${tenant}`,
        fields: html`${field("name", "Name", "", html`required pattern="[a-z][a-z0-9_\\-]*"`)}
          <p class="quiet">If there is a dataset of this name, the file becomes its next version.</p>`,
        label: "CSV or Parquet file",
        accept: ".csv,.parquet",
        more: html`<details>
          <summary>Options</summary>
          ${field("encoding", "Encoding of a CSV file", "", html`placeholder="utf-8"`)}
          ${linesField("source", "Where it came from")}
        </details>`,
        meanwhile: "The platform reads it and makes its profile…",
        send({ name, encoding, source }, file) {
          const from = Object.entries(pairsOf("source", source) ?? {}).map(([key, value]) => [key, shown(value)]);
          const query = new URLSearchParams({
            ...(encoding && { encoding }),
            ...(from.length && { source: JSON.stringify(Object.fromEntries(from)) }),
          });
          const options = query.size ? `?${query}` : "";
          const type = file.name.endsWith(".parquet") ? "application/vnd.apache.parquet" : "text/csv";
          return { path: `${at("tenants", tenant, "datasets", name)}/versions${options}`, body: file, type };
        },
        next: ({ name }) => link(["t", tenant, "datasets", name]),
      });
    },
  },
};
