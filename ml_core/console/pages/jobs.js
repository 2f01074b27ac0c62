// The jobs of a tenant, newest first, and its share in the queue.

import { ask, at } from "../core/api.js";
import { number } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { jobProgress } from "../parts/job_progress.js";
import { badge } from "../parts/states.js";
import { facts } from "../parts/table.js";

const STATES = ["queued", "starting", "running", "cancelling", "succeeded", "failed", "cancelled"];

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Jobs of ${tenant}`,
  topics: ["audit", "jobs"],
  load: ({ params: { tenant }, signal }) => ask("GET", at("tenants", tenant, "job-quota"), { signal }),

  view: ({ quota, usage }, { params: { tenant }, query: { state: chosen = "", schedule } }) =>
    html`<h1 tabindex="-1">Jobs${schedule && html` of the schedule ${schedule}`}</h1>
      <p>
        <a href="${link(["t", tenant, "training"])}">Train a model</a> ·
        <a href="${link(["t", tenant, "search"])}">Search for hyperparameters</a> ·
        <a href="${link(["t", tenant, "dataset-prediction"])}">Predict a dataset</a>
      </p>
      ${facts([
        ["Waiting", share(usage.queued, quota.max_queued)],
        ["Running", share(usage.running, quota.max_running)],
        ["Cores", share(usage.cpus, quota.max_cpus)],
        ["Core-seconds in 24 hours", share(Math.round(usage.cpu_seconds), quota.cpu_seconds_per_day)],
      ])}
      <nav class="filter" aria-label="Filter by state">
        ${["", ...STATES].map((state) => {
          const address = link(["t", tenant, "jobs"], { state, schedule });
          return html`<a href="${address}" ${chosen === state && html`aria-current="true"`}>${state || "all"}</a>`;
        })}
      </nav>
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query: { state, schedule }, signal }) {
    showList(main, {
      label: "Jobs",
      key: (job) => job.job_id,
      load: ({ limit, cursor }) =>
        ask("GET", at("tenants", tenant, "jobs"), { query: { limit, cursor, state, schedule }, signal }),
      none: state
        ? `No job is ${state}.`
        : html`No job was submitted yet. <a href="${link(["t", tenant, "training"])}">Train a model.</a>`,
      columns: [
        { name: "Job", cell: (job) => html`<a href="${link(["t", tenant, "jobs", job.job_id])}">${job.job_id}</a>` },
        { name: "State", cell: (job) => badge(job.state) },
        { name: "Progress", cell: jobProgress },
        { name: "Kind", cell: (job) => job.kind },
        {
          name: "Model",
          cell: (job) => html`<a href="${link(["t", tenant, "models", job.spec.model_id])}">${job.spec.model_id}</a>`,
        },
        { name: "Submitted", cell: (job) => html`<when-time datetime="${job.submitted_at}"></when-time>` },
        { name: "By", cell: (job) => html`<span class="quiet">${job.submitted_by}</span>` },
      ],
    });
  },
};

/** @param {number} used @param {number | null} most */
const share = (used, most) => html`${number(used)}${most !== null && html` <span class="quiet">of ${number(most)}</span>`}`;
