// A tenant: what its environments serve and how well, its jobs, and what changed last.

import { ask, at } from "../core/api.js";
import { subjectOf, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { acting, actsView } from "../parts/acts.js";
import { selectField } from "../parts/fields.js";
import { jobProgress } from "../parts/job_progress.js";
import { openPlacement } from "../parts/placement.js";
import { badge, button, empty } from "../parts/states.js";
import { table } from "../parts/table.js";
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
    const { cell, self_test_rows: testRows } = tenant;
    return { cell, testRows, pointers, verdicts: verdicts.items, alerts, jobs: jobs.items, changes: changes.items };
  },

  view({ cell, testRows, pointers, verdicts, alerts, jobs, changes }, context) {
    const {
      params: { tenant },
      session,
    } = context;
    return html` <h1 tabindex="-1">${tenant}</h1>
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
        ${
          changes.length
            ? html`<ul class="rows">
                ${changes.map(changeRow)}
              </ul>`
            : empty("Nothing was changed yet.")
        }
      </section>
      <section>
        <h2>Policies</h2>
        <p>New versions keep as their self-test ${TEST_ROWS[testRows]}.</p>
        ${actsView("Tenant", actsOf({ testRows }, context))}
      </section>`;
  },

  actions: {
    act: acting(actsOf),

    async place(_, __, { params: { tenant }, signal, refresh, say }) {
      openPlacement(await ask("GET", `${at("tenants", tenant)}/placement`, { signal }), async (said) => {
        await refresh();
        say(said);
      });
    },
  },
};

/** @type {Record<string, string>} */
const TEST_ROWS = {
  training: "held-out rows of their training",
  synthetic: "synthetic rows, with no cell of the data",
};

/**
 * What can be done to a tenant.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ testRows }, { params: { tenant }, session }) {
  return {
    rows: {
      label: "Self-test rows",
      of: tenant,
      refused: session.lacks("admin"),
      what: "A replica asks a version these rows before it answers with it. Versions that there are keep theirs.",
      fields: selectField(
        "self_test_rows",
        "New versions keep",
        Object.entries(TEST_ROWS).map(
          ([value, text]) => html`<option value="${value}" ${value === testRows && html`selected`}>${text}</option>`,
        ),
      ),
      run: (body) => ask("PATCH", at("tenants", tenant), { body }),
    },
    remove: session.isOperator && {
      label: "Delete",
      of: `the tenant ${tenant}`,
      refused: session.cannotOperate(),
      what: "Everything that it has is deleted, permanently: models, datasets, runs, predictions and keys. Its requests are refused at once. Its name stays taken.",
      typed: tenant,
      run: () => ask("DELETE", at("tenants", tenant)),
      isDestructive: true,
      next: link([]),
    },
  };
}

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
  const page = (...names) => link(["t", tenant, "models", ...names]);
  const verdict = ({ model_id: model, environment }, of) => {
    const word = found.get(`${model}/${environment}`)?.[of];
    return word
      ? html`<span title="${MEANINGS[word]}">${badge(word)}</span>`
      : html`<span title="Not measured yet.">–</span>`;
  };
  const columns = [
    { name: "Model", cell: ({ model_id: model }) => html`<a href="${page(model)}">${model}</a>` },
    { name: "Environment", cell: ({ environment }) => environment },
    {
      name: "Version",
      cell: ({ model_id: model, version }) =>
        version ? html`<a href="${page(model, "versions", version)}">${version}</a>` : "nothing",
    },
    {
      name: "Beside it",
      cell: ({ canary, shadow }) =>
        html`${canary && badge("canary", `canary ${canary.version}: ${canary.percent}\u00a0%`)}
        ${shadow && badge("shadow", `shadow ${shadow}`)}`,
    },
    { name: "Quality", cell: (pointer) => verdict(pointer, "quality") },
    { name: "Drift", cell: (pointer) => verdict(pointer, "drift") },
    { name: "Moved", cell: (pointer) => html`<when-time datetime="${pointer.updated_at}"></when-time>` },
  ];
  return table("Served now", columns, pointers, (pointer) => `${pointer.model_id}/${pointer.environment}`);
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
