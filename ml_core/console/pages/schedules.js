// The schedules of a tenant: jobs that the platform submits at the times of a cron line.

import { ask, at } from "../core/api.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { badge } from "../parts/states.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Schedules of ${tenant}`,
  load: async () => null,

  view: (_, { params: { tenant } }) =>
    html`<h1 tabindex="-1">Schedules</h1>
      <p>
        Schedule <a href="${link(["t", tenant, "training"])}">a training</a>,
        <a href="${link(["t", tenant, "search"])}">a search</a> or
        <a href="${link(["t", tenant, "dataset-prediction"])}">the prediction of a dataset</a>.
      </p>
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, signal }) {
    showList(main, {
      label: "Schedules",
      key: (schedule) => schedule.name,
      load: ({ limit, cursor }) => ask("GET", at("tenants", tenant, "schedules"), { query: { limit, cursor }, signal }),
      none: "There is no schedule.",
      columns: [
        {
          name: "Schedule",
          cell: ({ name }) => html`<a href="${link(["t", tenant, "schedules", name])}">${name}</a>`,
        },
        { name: "State", cell: (schedule) => badge(schedule.state) },
        { name: "Job", cell: ({ kind, spec }) => `${kind} ${spec.model_id}` },
        { name: "At", cell: ({ cron, timezone }) => html`<code>${cron}</code> <span class="quiet">${timezone}</span>` },
        {
          name: "Next",
          cell: ({ next_at: next }) => (next ? html`<when-time exact datetime="${next}"></when-time>` : "–"),
        },
        { name: "Last", cell: lastView },
        { name: "Note", cell: ({ note }) => html`<span class="quiet">${note}</span>` },
      ],
    });

    function lastView({ last_at: last, last_job_id: job }) {
      return html`${last ? html`<when-time datetime="${last}"></when-time>` : "–"}
      ${job && html`<a href="${link(["t", tenant, "jobs", job])}">${job}</a>`}`;
    }
  },
};
