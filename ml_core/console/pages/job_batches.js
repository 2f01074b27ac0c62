// The batches of jobs, newest first: what operators submitted for each tenant that has a dataset.

import { ask } from "../core/api.js";
import { number, percent } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { statesView } from "../parts/job_states.js";

/** @type {import("../main.js").Page} */
export default {
  title: () => "Batches of jobs",
  topics: ["jobs"],
  everyS: 10,
  load: async () => null,

  view: () =>
    html`<h1 tabindex="-1">Batches of jobs</h1>
      <p>
        The page <i>Train a model</i> of a tenant submits a training for each tenant that has a dataset of the same
        name.
      </p>
      <data-table></data-table>`,

  connect(main, _, { signal }) {
    showList(main, {
      label: "Batches",
      key: (batch) => batch.batch_id,
      load: ({ limit, cursor }) => ask("GET", "job-batches", { query: { limit, cursor }, signal }),
      none: "No batch was submitted yet.",
      columns: [
        {
          name: "Batch",
          cell: ({ batch_id: id }) => html`<a href="${link(["batches", id])}">${id}</a>`,
        },
        { name: "States", cell: ({ states }) => statesView(states) },
        { name: "Job", cell: ({ kind, spec }) => `${kind} ${spec.model_id}` },
        { name: "Jobs", isNumber: true, cell: ({ jobs }) => number(jobs) },
        { name: "Ended", isNumber: true, cell: (batch) => percent(batch.percent / 100) },
        { name: "Submitted", cell: (batch) => html`<when-time datetime="${batch.submitted_at}"></when-time>` },
        { name: "By", cell: (batch) => html`<span class="quiet">${batch.submitted_by}</span>` },
      ],
    });
  },
};
