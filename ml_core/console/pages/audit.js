// The audit of a tenant as a stream: who changed what, when and for which request; newest first.

import { ask, at } from "../core/api.js";
import { subjectOf, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link, turn } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { field, fieldsOf } from "../parts/fields.js";

const FILTERS = [
  ["action", "Action", "environment."],
  ["principal", "By", "key:0123456789abcdef"],
  ["model", "Model", "tickets"],
  ["request_id", "Request", ""],
];

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Audit of ${tenant}`,
  load: async () => null,

  view: (_, { query }) =>
    html`<h1 tabindex="-1">Audit</h1>
      <form class="line" data-action="search" role="search">
        ${FILTERS.map(([name, label, example]) => field(name, label, query[name], html`placeholder="${example}"`))}
        <button type="submit">Search</button>
      </form>
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    const wanted = Object.fromEntries(FILTERS.map(([name]) => [name, query[name]]));
    const path = `${at("tenants", tenant)}/audit`;
    showList(main, {
      label: "Changes",
      key: (change) => String(change.audit_id),
      load: ({ limit, cursor }) =>
        ask("GET", path, { query: { ...wanted, limit, after: cursor, descending: true }, signal }),
      none: "No change is like that. An action is such as environment.moved, or environment. for all of a noun.",
      columns: [
        { name: "When", cell: (change) => html`<when-time datetime="${change.at}"></when-time>` },
        { name: "Action", cell: (change) => words(change.action.replace(".", " ")) },
        { name: "Of", cell: (change) => subjectOf(change.subject) },
        {
          name: "By",
          cell: (change) =>
            html`<a href="${link(["t", tenant, "audit"], { principal: change.principal })}">${change.principal}</a>`,
        },
        { name: "More", cell: detailsView },
      ],
    });
  },

  actions: {
    search: (element) => turn(fieldsOf(element)),
  },
};

/** @param {any} change */
function detailsView({ details, request_id: request }) {
  const given = Object.keys(details).length > 0;
  if (!given && !request) return html``;
  return html`<details>
    <summary>Details</summary>
    ${given && html`<pre tabindex="0">${JSON.stringify(details, null, 2)}</pre>`}
    ${request && html`<p class="quiet">Request ${request}</p>`}
  </details>`;
}
