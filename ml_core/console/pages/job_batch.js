// A batch of jobs: how far it is, why some failed, and who was left out; cancel it, or queue again what failed.

import { ask, at } from "../core/api.js";
import { counted, duration, number, percent } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { acting, actsView } from "../parts/acts.js";
import { reasonField } from "../parts/dialog.js";
import { statesView } from "../parts/job_states.js";
import { facts } from "../parts/table.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ batch }) => batch,
  topics: ["jobs"],
  everyS: 5,
  load: ({ params: { batch }, signal }) => ask("GET", at("job-batches", batch), { signal }),

  view: (batch, context) =>
    html`<p class="quiet"><a href="${link(["batches"])}">Batches of jobs</a></p>
      <h1 tabindex="-1">${batch.kind} ${batch.spec.model_id} of ${counted(batch.jobs, "tenant")}</h1>
      <p class="quiet"><code>${batch.batch_id}</code></p>
      <p>
        <progress max="100" value="${batch.percent}" aria-label="Ended"></progress> ${percent(batch.percent / 100)}
        ${statesView(batch.states)}
      </p>
      ${facts([
        ["Submitted", html`<when-time datetime="${batch.submitted_at}"></when-time> by ${batch.submitted_by}`],
        ["Takes", batch.elapsed_s !== null && duration(batch.elapsed_s)],
        ["Ended a second", batch.rate_per_s !== null && number(batch.rate_per_s)],
        ["Left", batch.eta_s !== null && `about ${duration(batch.eta_s)}`],
        ["Without the dataset", batch.without_dataset > 0 && counted(batch.without_dataset, "tenant")],
      ])}
      ${actsView("Batch", actsOf(batch, context))} ${listView("Why jobs failed", batch.failures, failureView)}
      ${listView("Left out by their quota", batch.refused, ({ tenant_id: tenant, reason }) => html`${tenantLink(tenant)} ${reason}`)}
      <details>
        <summary>Specification</summary>
        <pre tabindex="0">${JSON.stringify(batch.spec, null, 2)}</pre>
      </details>`,

  actions: { act: acting(actsOf) },
};

/**
 * What can be done to a batch.
 *
 * @param {any} batch @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ batch_id: id, percent: ended, states }, { session }) {
  const shared = { of: id, refused: session.cannotOperate() };
  return {
    cancel: ended < 100 && {
      ...shared,
      label: "Cancel",
      what: "Its jobs that have not ended are cancelled. What they have computed is lost.",
      fields: reasonField({ label: "Reason (kept in the audit)" }),
      run: ({ reason }) => ask("POST", `${at("job-batches", id)}/cancel`, { query: { reason } }),
      isDestructive: true,
    },
    retry: (states.failed ?? 0) + (states.cancelled ?? 0) > 0 && {
      ...shared,
      label: "Queue again",
      what: "Its jobs that failed or were cancelled are executed again as they were submitted.",
      run: () => ask("POST", `${at("job-batches", id)}/retry`),
    },
  };
}

/** @param {string} heading @param {any[]} items @param {(item: any) => unknown} view */
function listView(heading, items, view) {
  if (!items.length) return html``;
  return html`<section>
    <h2>${heading}</h2>
    <ul class="rows">
      ${items.map((item) => html`<li>${view(item)}</li>`)}
    </ul>
  </section>`;
}

/** @param {any} failure */
const failureView = ({ reason, count, tenants }) =>
  html`<b>${counted(count, "job")}</b> ${reason}
    <span class="quiet">such as of</span> ${tenants.map((tenant) => html`${tenantLink(tenant)} `)}`;

/** @param {string} tenant */
const tenantLink = (tenant) => html`<a href="${link(["t", tenant, "jobs"])}">${tenant}</a>`;
