// The models of a tenant.

import { ask, at } from "../core/api.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { showList } from "../parts/data_table.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Models of ${tenant}`,
  load: async () => null,
  view: () =>
    html`<h1 tabindex="-1">Models</h1>
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    const page = (model) => link(["t", tenant, "models", model.model_id]);
    const newest = ({ model_id: model, newest_version: version }) =>
      version ? html`<a href="${link(["t", tenant, "models", model, "versions", version])}">${version}</a>` : "–";
    showList(main, {
      label: "Models",
      search: "Search models",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (model) => model.model_id,
      load: ({ text, ...of }) => ask("GET", at("tenants", tenant, "models"), { query: { ...of, name: text }, signal }),
      none: html`There is no model. <a href="${link(["t", tenant, "training"])}">Train one.</a>`,
      columns: [
        { name: "Model", cell: (model) => html`<a href="${page(model)}">${model.model_id}</a>` },
        { name: "Type", cell: (model) => model.model_type },
        { name: "Versions", isNumber: true, cell: (model) => model.versions },
        { name: "Newest", cell: newest },
        { name: "Created", cell: (model) => html`<when-time datetime="${model.created_at}"></when-time>` },
      ],
    });
  },
};
