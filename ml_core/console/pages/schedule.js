// A schedule: when it is due, what it submits, what became of it; pause, resume, run or delete it.

import { ask, at } from "../core/api.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { acting, actsView } from "../parts/acts.js";
import { ruleView } from "../parts/drift_rule.js";
import { badge, empty } from "../parts/states.js";
import { facts } from "../parts/table.js";

const SHOWN_JOBS = 10;

/** @type {import("../main.js").Page} */
export default {
  title: ({ schedule }) => schedule,
  everyS: 5,

  async load({ params: { tenant, schedule }, signal }) {
    const root = at("tenants", tenant);
    const [found, jobs] = await Promise.all([
      ask("GET", `${root}/${at("schedules", schedule)}`, { signal }),
      ask("GET", `${root}/jobs`, { query: { schedule, limit: SHOWN_JOBS }, signal }),
    ]);
    return { schedule: found, jobs };
  },

  view({ schedule, jobs }, context) {
    const { tenant } = context.params;
    const { name, state, kind, spec } = schedule;
    return html`<p class="quiet"><a href="${link(["t", tenant, "schedules"])}">Schedules</a></p>
      <h1 tabindex="-1">${name} ${badge(state)}</h1>
      ${schedule.note && html`<p class="quiet">${schedule.note}</p>`} ${factsView(schedule, tenant)}
      ${actsView("Schedule", actsOf({ schedule }, context))}
      <section>
        <h2>Last jobs</h2>
        ${jobs.items.length ? jobsView(jobs, tenant, name) : empty("It has submitted no job yet.")}
      </section>
      <details>
        <summary>What it submits</summary>
        <pre tabindex="0">${JSON.stringify({ kind, ...spec, ...schedule.options }, null, 2)}</pre>
      </details>`;
  },

  actions: { act: acting(actsOf) },
};

/**
 * What can be done to a schedule.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ schedule: { name, state } }, { params: { tenant }, session }) {
  const path = at("tenants", tenant, "schedules", name);
  const shared = { of: `${name} of ${tenant}`, refused: session.lacks("train") };
  return {
    run: {
      ...shared,
      label: "Run now",
      what: "Its job is submitted now, with the rights of your key. Its times stay as they are.",
      run: () => ask("POST", `${path}/run-now`),
      said: ({ job_id: job }) => `${name}: the job ${job} is queued.`,
    },
    pause: state === "active" && {
      ...shared,
      label: "Pause",
      what: "It submits no more jobs until it is resumed. Jobs that were submitted go on.",
      run: () => ask("POST", `${path}/pause`),
    },
    resume: state !== "active" && {
      ...shared,
      label: "Resume",
      what: "It goes on with the next time from now. Times that passed meanwhile are left out.",
      run: () => ask("POST", `${path}/resume`),
    },
    delete: {
      ...shared,
      label: "Delete",
      what: "It submits no more jobs, and can't be restored. Jobs that were submitted go on.",
      run: () => ask("DELETE", path),
      isDestructive: true,
      next: link(["t", tenant, "schedules"]),
    },
  };
}

/** @param {any} schedule @param {string} tenant */
function factsView({ cron, timezone, next_at: next, last_at: last, on_drift: rule, retraining, ...schedule }, tenant) {
  return html`${facts([
    ["At", html`<code>${cron}</code> <span class="quiet">${timezone}</span>`],
    ["Next", next ? html`<when-time exact datetime="${next}"></when-time>` : "not active"],
    ["Last", last ? html`<when-time datetime="${last}"></when-time>` : "never"],
    ["Job", `${schedule.kind} ${schedule.spec.model_id}`],
    ["Acts for", html`${schedule.created_by} <span class="quiet">created <when-time datetime="${schedule.created_at}"></when-time></span>`],
    ["Retraining", retraining && html`<a href="${link(["t", tenant, "jobs", retraining.job_id])}">goes on</a>`],
  ])}
  ${rule && ruleView(rule)}`;
}

/** @param {any} jobs @param {string} tenant @param {string} schedule */
function jobsView({ items, next_cursor: more }, tenant, schedule) {
  return html`<ul class="rows">
      ${items.map(
        (job) =>
          html`<li data-key="${job.job_id}">
            <a href="${link(["t", tenant, "jobs", job.job_id])}">${job.job_id}</a> ${badge(job.state)}
            <when-time datetime="${job.submitted_at}"></when-time> <span class="quiet">${job.error?.message}</span>
          </li>`,
      )}
    </ul>
    ${more && html`<p><a href="${link(["t", tenant, "jobs"], { schedule })}">All its jobs</a></p>`}`;
}
