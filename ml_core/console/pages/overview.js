// The platform, for its operators: is it healthy, what does each replica serve, which jobs run, which tenants are there.

import { ask } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { acting, actsView } from "../parts/acts.js";
import { showList } from "../parts/data_table.js";
import { namesField } from "../parts/fields.js";
import { jobProgress } from "../parts/job_progress.js";
import { meanwhileText } from "../parts/replicas.js";
import { badge, empty } from "../parts/states.js";
import { facts, table } from "../parts/table.js";
import "../parts/traffic_charts.js";

const MOST = 100; // jobs, and tenants with alerts, that the API names

/** @type {import("../main.js").Page} */
export default {
  title: () => "Platform",
  topics: ["jobs", "cells"],
  everyS: 10,

  async load({ signal }) {
    const paths = ["platform", "platform/jobs", "platform/alerts"];
    const [health, jobs, alerts] = await Promise.all(paths.map((path) => ask("GET", path, { signal })));
    return { health, jobs, alerts };
  },

  view: ({ health, jobs, alerts }, context) =>
    html` <h1 tabindex="-1">Platform ${badge(health.status)}</h1>
      ${problems(health)}
      <section>
        <h2>Cells</h2>
        ${health.cells.map(cellView)}
      </section>
      <section>
        <h2>Requests</h2>
        <traffic-charts></traffic-charts>
      </section>
      <section>
        <h2>Alerts</h2>
        ${alerts.length ? table("Alerts", ALERTS, alerts, ({ tenant_id: tenant }) => tenant) : empty("No version that is served has an alert of quality or drift.")}
        ${alerts.length >= MOST && html`<p class="quiet">The ${MOST} tenants with the most alerts are shown.</p>`}
      </section>
      <section>
        <h2>Jobs</h2>
        ${jobs.length ? table("Jobs", JOBS, jobs, (job) => `${job.tenant_id}/${job.job_id}`) : empty("No job runs or waits.")}
        ${jobs.length >= MOST && html`<p class="quiet">The first ${MOST} are shown; the page of each tenant has its others.</p>`}
      </section>
      <section>
        <h2>${context.query.deleted ? "Deleted tenants" : "Tenants"}</h2>
        ${actsView("Tenants", actsOf(null, context))}
        <p>
          <a href="${link([], { deleted: context.query.deleted ? undefined : "yes" })}"
            >${context.query.deleted ? "Show the tenants that there are" : "Show deleted tenants"}</a
          >
        </p>
        <data-table></data-table>
      </section>`,

  connect(main, _, { query, signal }) {
    showList(main, {
      label: "Tenants",
      search: "Search tenants",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (tenant) => tenant.tenant_id,
      load: ({ text, ...page }) =>
        ask("GET", "tenants", { query: { ...page, name: text, deleted: query.deleted && true }, signal }),
      none: query.deleted ? "No tenant was deleted." : "There is no tenant. Create one.",
      columns: [
        {
          name: "Tenant",
          cell: ({ tenant_id: id }) => (query.deleted ? id : html`<a href="${link(["t", id])}">${id}</a>`),
        },
        { name: "Cell", cell: (tenant) => tenant.cell },
        { name: "Created", cell: (tenant) => html`<when-time datetime="${tenant.created_at}"></when-time>` },
        ...(query.deleted
          ? [{ name: "Deleted", cell: (tenant) => html`<when-time datetime="${tenant.deleted_at}"></when-time>` }]
          : []),
      ],
    });
  },

  actions: { act: acting(actsOf) },
};

/**
 * What can be done to the tenants.
 *
 * @param {unknown} _ @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act>}
 */
function actsOf(_, { session }) {
  return {
    create: {
      label: "Create",
      of: "tenants",
      refused: session.cannotOperate(),
      what: "In the shared cell: all of them, or none if a name can't be taken.",
      fields: namesField("tenant_ids", "Names"),
      run: ({ tenant_ids: names }) =>
        ask("POST", "tenants", { body: { tenant_ids: names.split(/\s+/).filter(Boolean) } }),
      said: (made) => `${made.map(({ tenant_id: id }) => id).join(", ")}: created.`,
    },
  };
}

/** @param {any} health */
function problems(health) {
  const found = [];
  if (!health.is_store_reachable) found.push(html`The artifact store can't be read: ${health.store_problem}`);
  if (health.schema_revision !== health.wanted_schema_revision) {
    const [has, needs] = [health.schema_revision ?? "none", health.wanted_schema_revision];
    found.push(
      html`The registry has the schema ${has}, and this release needs ${needs}. Run <code>mlcore db upgrade</code>.`,
    );
  }
  return found.map((text) => html`<p class="problem" role="alert">${text}</p>`);
}

/** @param {any} cell */
function cellView({ name, replicas }) {
  return html`<section class="card" data-key="cell-${name}">
    <h3>${name} <span class="quiet">${counted(replicas.length, "replica")}</span></h3>
    ${replicas.length ? html`<div class="grid">${replicas.map(replicaView)}</div>` : empty("No replica of this cell is alive.")}
  </section>`;
}

/** @param {any} replica */
function replicaView(replica) {
  const state = replica.failed ? "failed" : replica.is_behind ? "behind" : "running";
  return html`<article class="replica" data-key="${replica.replica_id}">
    <h4><code>${replica.replica_id}</code> ${badge(state)}</h4>
    ${facts([
      ["Generation", replica.generation],
      ["Pointers", replica.pointers],
      ["In memory", replica.resident],
      ["Loaded on demand", replica.deferred],
      ["Loading", replica.loading],
      ["Failed", replica.failed],
      ["Started", html`<when-time datetime="${replica.started_at}"></when-time>`],
      ["Reported", html`<when-time datetime="${replica.reported_at}"></when-time>`],
    ])}
    ${replica.pending.map(pendingView)}
  </article>`;
}

/** @param {any} pending */
function pendingView({ tenant_id: tenant, model_id: model, environment, version, state, serves, reason }) {
  const address = link(["t", tenant, "models", model], { environment });
  return html`<p class="${state === "failed" ? "problem" : "quiet"}">
    <a href="${address}">${tenant}/${model}</a> version ${version} in ${environment}: ${badge(state)} ${reason}
    ${meanwhileText(serves)}
  </p>`;
}

const ALERTS = [
  { name: "Tenant", cell: ({ tenant_id: tenant }) => html`<a href="${link(["t", tenant])}">${tenant}</a>` },
  { name: "Quality", isNumber: true, cell: ({ quality }) => quality },
  { name: "Drift", isNumber: true, cell: ({ drift }) => drift },
];

const JOBS = [
  {
    name: "Job",
    cell: ({ tenant_id: tenant, job_id: id }) => html`<a href="${link(["t", tenant, "jobs", id])}">${id}</a>`,
  },
  { name: "Tenant", cell: ({ tenant_id: tenant }) => html`<a href="${link(["t", tenant])}">${tenant}</a>` },
  { name: "Kind", cell: ({ kind }) => kind },
  { name: "State", cell: ({ state }) => badge(state) },
  { name: "Progress", cell: jobProgress },
  { name: "Submitted", cell: (job) => html`<when-time datetime="${job.submitted_at}"></when-time>` },
];
