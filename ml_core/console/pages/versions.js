// The versions of all models of a tenant, by a text, a tag or a bound of a metric.

import { ask, at } from "../core/api.js";
import { words } from "../core/format.js";
import { html } from "../core/html.js";
import { link, turn } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { field, fieldsOf } from "../parts/fields.js";
import { badge } from "../parts/states.js";

const FILTERS = [
  ["text", "Text in a name, a note or a tag", ""],
  ["tag", "Tag", "team=support"],
  ["metric", "Metric", "accuracy>=0.8"],
  ["model_type", "Model type", "classification"],
  ["sort", "Sorted by", "created"],
];

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Versions of ${tenant}`,
  load: async () => null,

  view: (_, { params: { tenant }, query }) =>
    html`<p class="quiet"><a href="${link(["t", tenant, "models"])}">Models</a></p>
      <h1 tabindex="-1">Versions of all models</h1>
      <form class="line" data-action="search" role="search">
        ${FILTERS.map(([name, label, example]) => field(name, label, query[name], html`placeholder="${example}"`))}
        <label class="choice"
          ><input type="checkbox" name="include_archived" value="true" ${query.include_archived && html`checked`} />
          archived ones, too</label
        >
        <button type="submit">Search</button>
      </form>
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    const wanted = Object.fromEntries(
      [...FILTERS.map(([name]) => name), "include_archived"].map((name) => [name, query[name]]),
    );
    showList(main, {
      label: "Versions",
      key: (version) => `${version.model_id}/${version.version}`,
      load: ({ limit, cursor }) =>
        ask("GET", at("tenants", tenant, "versions"), { query: { ...wanted, limit, cursor }, signal }),
      none: "No version is like that.",
      columns: [
        {
          name: "Version",
          cell: ({ model_id: model, version }) =>
            html`<a href="${link(["t", tenant, "models", model, "versions", version])}">${model} ${version}</a>`,
        },
        {
          name: "Used by",
          cell: ({ uses, archived_at: archivedAt }) =>
            html`${uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}${archivedAt && badge("archived")}`,
        },
        { name: "Algorithm", cell: ({ algorithm, model_type: type }) => words(algorithm ?? type) },
        {
          name: "Tags",
          cell: ({ tags }) => Object.entries(tags).map(([name, value]) => html`<code>${name}=${value}</code> `),
        },
        { name: "Registered", cell: (version) => html`<when-time datetime="${version.created_at}"></when-time>` },
        { name: "By", cell: (version) => html`<span class="quiet">${version.created_by}</span>` },
      ],
    });
  },

  actions: {
    search: (element) => turn(fieldsOf(element)),
  },
};
