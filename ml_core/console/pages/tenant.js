// A tenant: what its environments serve and how well, its jobs, and what changed last.

import { ask, at } from "../core/api.js";
import { subjectOf, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { jobProgress } from "../parts/job_progress.js";
import { openPlacement } from "../parts/placement.js";
import { badge, button, empty } from "../parts/states.js";
import "../parts/traffic_charts.js";

const SHOWN = 20;

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => tenant,
  topics: ["audit", "jobs"],

  async load({ params, signal }) {
    const root = at("tenants", params.tenant);
    const list = (noun, query = {}) => ask("GET", `${root}/${noun}`, { query: { limit: SHOWN, ...query }, signal });
    const [tenant, pointers, verdicts, alerts, jobs, changes] = await Promise.all([
      ask("GET", root, { signal }),
      list("pointers"),
      list("verdicts"), // in the same order, so those of these pointers are among the first
      list("verdicts", { only_alerts: true }),
      list("jobs", { limit: 8 }),
      list("audit", { descending: true, limit: 10 }),
    ]);
    const { cell } = tenant;
    return { cell, pointers, verdicts: verdicts.items, alerts, jobs: jobs.items, changes: changes.items };
  },

  view: ({ cell, pointers, verdicts, alerts, jobs, changes }, { params: { tenant }, session }) =>
    html` <h1 tabindex="-1">${tenant}</h1>
      <p>
        Served by ${cell === "shared" ? "the shared cell" : html`a cell of its own, ${cell}`}.
        ${session.isOperator && button({ action: "place", text: "Place…", refused: session.cannotOperate() })}
      </p>
      ${alerts.items.map((verdict) => alertView(tenant, verdict))}
      ${alerts.next_cursor && html`<p class="problem" role="status">There are more alerts; the first ${SHOWN} are shown.</p>`}
      <section>
        <h2>Served now</h2>
        ${
          pointers.items.length
            ? html`${served(tenant, pointers.items, verdicts)}
              ${pointers.next_cursor && html`<p class="quiet">The first ${SHOWN} are shown; <a href="${link(["t", tenant, "models"])}">the models</a> have the others.</p>`}`
            : empty(
                html`No environment serves a version. Choose <a href="${link(["t", tenant, "models"])}">a model</a> and
                  promote one.`,
              )
        }
      </section>
      <section>
        <h2>Requests</h2>
        <traffic-charts tenant="${tenant}"></traffic-charts>
      </section>
      <section>
        <h2>Newest jobs</h2>
        ${
          jobs.length
            ? html`<ul class="rows">
                  ${jobs.map((job) => jobRow(tenant, job))}
                </ul>
                <p><a href="${link(["t", tenant, "jobs"])}">All jobs</a></p>`
            : empty("No job was submitted yet.")
        }
      </section>
      <section>
        <h2>Last changes</h2>
        <ul class="rows">
          ${changes.map(changeRow)}
        </ul>
      </section>`,

  actions: {
    async place(_, __, { params: { tenant }, signal, refresh, say }) {
      openPlacement(await ask("GET", `${at("tenants", tenant)}/placement`, { signal }), async (said) => {
        await refresh();
        say(said);
      });
    },
  },
};

const MEANINGS = /** @type {Record<string, string>} */ ({
  ok: "As in training.",
  alert: "Other than in training, by more than chance.",
  unknown: "Too few rows or labels yet.",
});

/** @param {string} tenant @param {any} verdict */
function alertView(tenant, { model_id: model, environment, version, quality, drift, measured_at: moment }) {
  const what = [quality === "alert" && "quality", drift === "alert" && "drift"].filter(Boolean).join(" and ");
  return html`<p class="problem" role="status" data-key="alert-${model}/${environment}">
    <a href="${link(["t", tenant, "models", model, "predictions"])}">${model}</a> version ${version} in ${environment}:
    alert of ${what}, measured <when-time datetime="${moment}"></when-time>.
  </p>`;
}

/** @param {string} tenant @param {any[]} pointers @param {any[]} verdicts */
function served(tenant, pointers, verdicts) {
  const found = new Map(verdicts.map((verdict) => [`${verdict.model_id}/${verdict.environment}`, verdict]));
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Served now">
    <table>
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">Environment</th>
          <th scope="col">Version</th>
          <th scope="col">Beside it</th>
          <th scope="col">Quality</th>
          <th scope="col">Drift</th>
          <th scope="col">Moved</th>
        </tr>
      </thead>
      <tbody>
        ${pointers.map((pointer) => {
          const { model_id: model, environment, version, canary, shadow } = pointer;
          const measured = found.get(`${model}/${environment}`);
          const verdict = (word) =>
            word
              ? html`<span title="${MEANINGS[word]}">${badge(word)}</span>`
              : html`<span title="Not measured yet.">–</span>`;
          return html`<tr data-key="${model}/${environment}">
            <td><a href="${link(["t", tenant, "models", model])}">${model}</a></td>
            <td>${environment}</td>
            <td>
              ${version ? html`<a href="${link(["t", tenant, "models", model, "versions", version])}">${version}</a>` : "nothing"}
            </td>
            <td>
              ${canary && badge("canary", `canary ${canary.version}: ${canary.percent} %`)}
              ${shadow && badge("shadow", `shadow ${shadow}`)}
            </td>
            <td>${verdict(measured?.quality)}</td>
            <td>${verdict(measured?.drift)}</td>
            <td><when-time datetime="${pointer.updated_at}"></when-time></td>
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}

/** @param {string} tenant @param {any} job */
function jobRow(tenant, job) {
  return html`<li data-key="${job.job_id}">
    <a href="${link(["t", tenant, "jobs", job.job_id])}">${job.kind} ${job.spec.model_id}</a> ${badge(job.state)}
    ${jobProgress(job)} <when-time datetime="${job.finished_at ?? job.submitted_at}"></when-time>
  </li>`;
}

/** @param {any} change */
function changeRow({ audit_id: id, action, subject, principal, at: moment }) {
  return html`<li data-key="change-${id}">
    <strong>${words(action.replace(".", " "))}</strong> ${subjectOf(subject)} <span class="quiet">by ${principal}</span>
    <when-time datetime="${moment}"></when-time>
  </li>`;
}
