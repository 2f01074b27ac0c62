// The datasets of a tenant; a file becomes another, or the next version of one.

import { at, upload } from "../core/api.js";
import { bytes, number, percent } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { datasetsOf } from "../parts/dataset_list.js";
import { openDialog } from "../parts/dialog.js";
import { field } from "../parts/fields.js";
import { button } from "../parts/states.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Datasets of ${tenant}`,
  load: async () => null,
  view: (_, { session }) =>
    html`<h1 tabindex="-1">Datasets</h1>
      <div class="buttons">
        ${button({ action: "upload", text: "Upload a file…", refused: session.lacks("train") })}
      </div>
      ${session.lacks("train") && html`<p class="quiet">${session.lacks("train")}</p>`}
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    showList(main, {
      ...datasetsOf(tenant, query.q, signal),
      none: "There is no dataset. Upload a file, or train on one from the command line.",
      columns: [
        {
          name: "Dataset",
          cell: ({ dataset_id: id }) => html`<a href="${link(["t", tenant, "datasets", id])}">${id}</a>`,
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
      let sent = 0;
      let size = 0;
      openDialog({
        content: () => ({
          title: `Upload a dataset to ${tenant}`,
          submit: "Upload",
          body: html`${field("name", "Name", "", html`required pattern="[a-z][a-z0-9_\\-]*"`)}
            <p class="quiet">If there is a dataset of this name, the file becomes its next version.</p>
            ${field("file", "CSV or Parquet file", "", html`type="file" required accept=".csv,.parquet"`)}
            ${size > 0 && progressView(sent, size)}`,
        }),
        async submit(fields, redraw, closed) {
          const { name, file } = /** @type {{name: string, file: any}} */ (fields);
          const type = file.name.endsWith(".parquet") ? "application/vnd.apache.parquet" : "text/csv";
          const show = (share) => {
            sent = share;
            redraw();
          };
          size = file.size;
          show(0);
          const path = `${at("tenants", tenant, "datasets", name)}/versions`;
          await upload(path, file, type, show, closed).finally(() => (size = 0));
          location.hash = link(["t", tenant, "datasets", name]);
        },
      });
    },
  },
};

/** @param {number} sent The share that is sent. @param {number} size */
const progressView = (sent, size) =>
  html`<p>
    <progress max="1" value="${sent}" aria-label="Sent"></progress>
    ${sent < 1 ? `${bytes(sent * size)} of ${bytes(size)} sent, ${percent(sent)}` : "Sent. The platform reads it and makes its profile…"}
  </p>`;
