// A schedule: when it is due, what it submits, what became of it; pause, resume, run or delete it.

import { ask, at } from "../core/api.js";
import { shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { openDialog } from "../parts/dialog.js";
import { badge, button, empty } from "../parts/states.js";
import { facts } from "../parts/table.js";

const SHOWN_JOBS = 10;

/**
 * @typedef {object} Act
 * @property {string} label
 * @property {string} what It does.
 * @property {(states: string) => boolean} isPossible
 * @property {boolean} [isDestructive]
 */

/** @type {Record<string, Act>} */
const ACTS = {
  "run-now": {
    label: "Run now",
    what: "Its job is submitted now, with the rights of your key. Its times stay as they are.",
    isPossible: () => true,
  },
  pause: {
    label: "Pause",
    what: "It submits no more jobs until it is resumed. Jobs that were submitted go on.",
    isPossible: (state) => state === "active",
  },
  resume: {
    label: "Resume",
    what: "It goes on with the next time from now. Times that passed meanwhile are left out.",
    isPossible: (state) => state !== "active",
  },
  delete: {
    label: "Delete",
    what: "It submits no more jobs, and can't be restored. Jobs that were submitted go on.",
    isPossible: () => true,
    isDestructive: true,
  },
};

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

  view({ schedule, jobs }, { params: { tenant }, session }) {
    const { name, state, kind, spec } = schedule;
    const lacks = session.lacks("train");
    return html`<p class="quiet"><a href="${link(["t", tenant, "schedules"])}">Schedules</a></p>
      <h1 tabindex="-1">${name} ${badge(state)}</h1>
      ${schedule.note && html`<p class="quiet">${schedule.note}</p>`} ${factsView(schedule, tenant)}
      <div class="buttons" role="group" aria-label="Schedule">
        ${Object.entries(ACTS)
          .filter(([, act]) => act.isPossible(state))
          .map(([act, { label, isDestructive }]) =>
            button({
              action: "act",
              text: `${label}…`,
              refused: lacks,
              style: isDestructive ? "danger" : "",
              data: { act },
            }),
          )}
      </div>
      ${lacks && html`<p class="quiet">${lacks}</p>`}
      <section>
        <h2>Last jobs</h2>
        ${jobs.items.length ? jobsView(jobs, tenant, name) : empty("It has submitted no job yet.")}
      </section>
      <details>
        <summary>What it submits</summary>
        <pre tabindex="0">${JSON.stringify({ kind, ...spec, ...schedule.options }, null, 2)}</pre>
      </details>`;
  },

  actions: {
    act(element, { schedule: { name } }, { params: { tenant }, refresh, say }) {
      const act = element.dataset.act ?? "";
      const { label, what, isDestructive } = ACTS[act];
      openDialog({
        content: () => ({
          title: `${label}: the schedule ${name} of ${tenant}`,
          submit: `${label} ${name}`,
          isDestructive,
          body: html`<p>${what}</p>`,
        }),
        async submit() {
          const path = at("tenants", tenant, "schedules", name);
          if (act === "delete") {
            await ask("DELETE", path);
            location.hash = link(["t", tenant, "schedules"]);
            return;
          }
          const answer = await ask("POST", `${path}/${act}`);
          await refresh();
          say(act === "run-now" ? `${name}: the job ${answer.job_id} is queued.` : `${name} is ${answer.state}.`);
        },
      });
    },
  },
};

/** @param {any} schedule @param {string} tenant */
function factsView({ cron, timezone, next_at: next, last_at: last, on_drift: rule, retraining, ...schedule }, tenant) {
  return html`${facts([
    ["At", html`<code>${cron}</code> <span class="quiet">${timezone}</span>`],
    ["Next", next ? html`<when-time exact datetime="${next}"></when-time>` : "not active"],
    ["Last", last ? html`<when-time datetime="${last}"></when-time>` : "never"],
    ["Job", `${schedule.kind} ${schedule.spec.model_id}`],
    ["Acts for", html`${schedule.created_by} <span class="quiet">created <when-time datetime="${schedule.created_at}"></when-time></span>`],
    ["Only on an alert in", rule?.environment],
    ["Retraining", retraining && html`<a href="${link(["t", tenant, "jobs", retraining.job_id])}">goes on</a>`],
  ])}
    ${rule && html`<p class="quiet">${Object.entries(rule).map(([name, value]) => html`${words(name)} <b>${shown(value)}</b> `)}</p>`}`;
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
