// What a tenant may ask: of the cell that serves it, and of the queue of jobs. The platform sets both.

import { ask, at } from "../core/api.js";
import { number } from "../core/format.js";
import { html } from "../core/html.js";
import { numberFields, numbersOf } from "../parts/fields.js";
import { openDialog } from "../parts/dialog.js";
import { button } from "../parts/states.js";
import { table } from "../parts/table.js";

/**
 * @typedef {object} Kind
 * @property {string} title
 * @property {string} path
 * @property {Record<string, string>} fields Of the API, each with its label.
 * @property {string} none What it means that a bound is not set.
 * @property {string} effect What happens when it is changed.
 */

/** @type {Record<string, Kind>} */
const KINDS = {
  predictions: {
    title: "Predictions",
    path: "quota",
    fields: {
      requests_per_s: "Requests per second",
      rows_per_s: "Rows per second",
      burst_s: "Seconds of both that may be saved up",
      weight: "Weight: its share of processor time",
    },
    none: "the platform's default",
    effect:
      "Replicas apply it within a second or so, without a restart. Requests over a rate get 429 and the time to wait; one" +
      " with more rows than a burst is refused.",
  },
  jobs: {
    title: "Jobs",
    path: "job-quota",
    fields: {
      max_queued: "Jobs that wait",
      max_running: "Jobs at the same time",
      max_cpus: "Cores at the same time",
      cpu_seconds_per_day: "Core-seconds in 24 hours",
      weight: "Weight: its turns in the queue",
    },
    none: "unbounded",
    effect:
      "Further jobs and cores at the same time wait. What exceeds another bound is refused at submission. Jobs that run" +
      " go on.",
  },
};

/** What of a job quota is in use. @type {Record<string, string>} */
const USED = { max_queued: "queued", max_running: "running", max_cpus: "cpus", cpu_seconds_per_day: "cpu_seconds" };

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Quotas of ${tenant}`,
  everyS: 5,

  async load({ params: { tenant }, signal }) {
    const [predictions, jobs] = await Promise.all(
      ["predictions", "jobs"].map((kind) => ask("GET", `${at("tenants", tenant)}/${KINDS[kind].path}`, { signal })),
    );
    return { predictions, jobs: jobs.quota, usage: jobs.usage };
  },

  view: (data, { session }) =>
    html`<h1 tabindex="-1">Quotas</h1>
      ${["predictions", "jobs"].map((kind) => quotaView(kind, data, session.cannotOperate()))}`,

  actions: {
    change(element, data, { params: { tenant }, refresh, say }) {
      const kind = element.dataset.kind ?? "";
      const { title, path, fields, none, effect } = KINDS[kind];
      const noun = title.toLowerCase();
      openDialog({
        content: () => ({
          title: `The quota of ${noun} of ${tenant}`,
          submit: `Change the quota of ${tenant}`,
          body: html`<p>${effect} The audit keeps who changed it.</p>
            ${numberFields(fields, data[kind])}
            <p class="quiet">Without a number: ${none}.</p>`,
        }),
        async submit(given) {
          await ask("PUT", `${at("tenants", tenant)}/${path}`, { body: numbersOf(fields, given) });
          await refresh();
          say(`The quota of ${noun} of ${tenant} is changed.`);
        },
      });
    },
  },
};

/** @param {string} kind @param {any} data @param {string | null} refused */
function quotaView(kind, { usage, ...quotas }, refused) {
  const { title, fields, none } = KINDS[kind];
  const columns = [
    { name: "Bound", isHead: true, cell: ([, label]) => label },
    { name: "Quota", isNumber: true, cell: ([name]) => number(quotas[kind][name] ?? none) },
    { name: "In use", isNumber: true, cell: ([name]) => name in USED && number(usage[USED[name]]) },
  ].slice(0, kind === "jobs" ? 3 : 2);
  return html`<section class="few">
    <h2>${title}</h2>
    ${table(title, columns, Object.entries(fields), ([name]) => `${kind}-${name}`)}
    <div class="buttons">
      ${button({ action: "change", text: `Change the quota of ${title.toLowerCase()}…`, refused, data: { kind } })}
    </div>
    ${refused && html`<p class="quiet">${refused}</p>`}
  </section>`;
}
