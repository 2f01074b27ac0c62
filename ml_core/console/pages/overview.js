// The platform, for its operators: is it healthy, what does each replica serve, which jobs run, which tenants are there.

import { ask } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { jobProgress } from "../parts/job_progress.js";
import { badge, empty } from "../parts/states.js";
import "../parts/traffic_charts.js";

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

  view: ({ health, jobs, alerts }) =>
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
        ${alerts.length ? alertTable(alerts) : empty("No version that is served has an alert of quality or drift.")}
      </section>
      <section>
        <h2>Jobs</h2>
        ${jobs.length ? jobTable(jobs) : empty("No job runs or waits.")}
      </section>
      <section>
        <h2>Tenants</h2>
        <data-table></data-table>
      </section>`,

  connect(main, _, { query, signal }) {
    showList(main, {
      label: "Tenants",
      search: "Search tenants",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (tenant) => tenant.tenant_id,
      load: ({ text, ...page }) => ask("GET", "tenants", { query: { ...page, name: text }, signal }),
      none: html`There is no tenant. Create one: <code>mlcore tenants create acme</code>`,
      columns: [
        { name: "Tenant", cell: (tenant) => html`<a href="${link(["t", tenant.tenant_id])}">${tenant.tenant_id}</a>` },
        { name: "Cell", cell: (tenant) => tenant.cell },
        { name: "Created", cell: (tenant) => html`<when-time datetime="${tenant.created_at}"></when-time>` },
      ],
    });
  },
};

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
  const counts = [
    ["Generation", replica.generation],
    ["Pointers", replica.pointers],
    ["In memory", replica.resident],
    ["Loaded on demand", replica.deferred],
    ["Loading", replica.loading],
    ["Failed", replica.failed],
  ];
  return html`<article class="replica" data-key="${replica.replica_id}">
    <h4><code>${replica.replica_id}</code> ${badge(state)}</h4>
    <dl class="facts">
      ${counts.map(
        ([term, value]) =>
          html`<div>
            <dt>${term}</dt>
            <dd>${value}</dd>
          </div>`,
      )}
      <div>
        <dt>Started</dt>
        <dd><when-time datetime="${replica.started_at}"></when-time></dd>
      </div>
      <div>
        <dt>Reported</dt>
        <dd><when-time datetime="${replica.reported_at}"></when-time></dd>
      </div>
    </dl>
    ${replica.pending.map(pendingView)}
  </article>`;
}

/** @param {any} pending */
function pendingView({ tenant_id: tenant, model_id: model, environment, version, state, serves, reason }) {
  const address = link(["t", tenant, "models", model], { environment });
  return html`<p class="${state === "failed" ? "problem" : "quiet"}">
    <a href="${address}">${tenant}/${model}</a> version ${version} in ${environment}: ${badge(state)} ${reason}
    ${serves ? `Version ${serves} answers meanwhile.` : "Requests are refused meanwhile."}
  </p>`;
}

/** @param {{tenant_id: string, quality: number, drift: number}[]} alerts */
function alertTable(alerts) {
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Alerts">
    <table>
      <thead>
        <tr>
          <th scope="col">Tenant</th>
          <th scope="col" class="number">Quality</th>
          <th scope="col" class="number">Drift</th>
        </tr>
      </thead>
      <tbody>
        ${alerts.map(
          ({ tenant_id: tenant, quality, drift }) =>
            html`<tr data-key="alerts-${tenant}">
              <td><a href="${link(["t", tenant])}">${tenant}</a></td>
              <td class="number">${quality}</td>
              <td class="number">${drift}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** @param {any[]} jobs */
function jobTable(jobs) {
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Jobs">
    <table>
      <thead>
        <tr>
          <th scope="col">Job</th>
          <th scope="col">Tenant</th>
          <th scope="col">Kind</th>
          <th scope="col">State</th>
          <th scope="col">Progress</th>
          <th scope="col">Submitted</th>
        </tr>
      </thead>
      <tbody>
        ${jobs.map(
          (job) =>
            html`<tr data-key="${job.tenant_id}/${job.job_id}">
              <td><a href="${link(["t", job.tenant_id, "jobs", job.job_id])}">${job.job_id}</a></td>
              <td><a href="${link(["t", job.tenant_id])}">${job.tenant_id}</a></td>
              <td>${job.kind}</td>
              <td>${badge(job.state)}</td>
              <td>${jobProgress(job)}</td>
              <td><when-time datetime="${job.submitted_at}"></when-time></td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
