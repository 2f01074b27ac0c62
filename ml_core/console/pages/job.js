// A job: how far it is, what it says, what it made or why it failed; cancel it or queue it again.

import { ApiError, ask, at } from "../core/api.js";
import { duration, number, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { openDialog, reasonField } from "../parts/dialog.js";
import { jobProgress } from "../parts/job_progress.js";
import { coreSeconds, planView } from "../parts/plan.js";
import { badge, button, problem } from "../parts/states.js";
import { facts } from "../parts/table.js";

const ENDED = ["succeeded", "failed", "cancelled"];
const KEPT_CHARACTERS = 200_000;

/** What was read of the log of the job that is shown. */
let log = { job: "", position: 0, text: "" };
/** How far a log was scrolled; whoever has scrolled back reads there. @type {WeakMap<Element, number>} */
const ends = new WeakMap();
/** The plan of the job that is shown. @type {{job: string, found: any}} */
let plan = { job: "", found: null };

/** @type {import("../main.js").Page} */
export default {
  title: ({ job }) => job,
  topics: ["audit", "jobs"],

  async load(context) {
    const {
      params: { tenant, job },
      signal,
    } = context;
    const path = at("tenants", tenant, "jobs", job);
    if (log.job !== path) log = { job: path, position: 0, text: "" };
    const query = { after: log.position };
    const [found, part] = await Promise.all([
      ask("GET", path, { signal }),
      ask("GET", `${path}/log`, { query, signal }),
    ]);
    // An answer that was overtaken begins where another one has begun.
    if (log.job === path && query.after === log.position) {
      log = { job: path, position: part.position, text: (log.text + part.text).slice(-KEPT_CHARACTERS) };
    }
    return { job: found, text: log.text, planned: await planOf(path, found, context) };
  },

  view({ job, text, planned }, { params: { tenant }, session }) {
    const isOver = ENDED.includes(job.state);
    const lacks = session.lacks("train");
    const canRetry = job.state === "failed" || job.state === "cancelled";
    return html`<h1 tabindex="-1">${job.kind} ${job.spec.model_id} ${badge(job.state)}</h1>
      <p class="quiet"><code>${job.job_id}</code></p>
      <p>${jobProgress(job)} ${job.waiting}</p>
      ${factsView(job, tenant)}
      <div class="buttons" role="group" aria-label="Job">
        ${!isOver && button({ action: "cancel", text: "Cancel…", refused: lacks, style: "danger" })}
        ${canRetry && button({ action: "retry", text: "Queue it again…", refused: lacks })}
      </div>
      ${lacks && (!isOver || canRetry) && html`<p class="quiet">${lacks}</p>`}
      ${
        job.error &&
        html`<section>
          <h2>Why it failed</h2>
          ${failure(job.error)}
        </section>`
      }
      ${resultView(tenant, job)}
      ${
        planned &&
        html`<section>
          <h2>Plan</h2>
          ${planned instanceof ApiError ? problem(planned) : planView(planned.plan, job.cpus, planned.share)}
        </section>`
      }
      <section>
        <h2>Log</h2>
        ${text ? html`<pre class="log" tabindex="0" aria-label="Log">${text}</pre>` : html`<p class="state">It has said nothing yet.</p>`}
      </section>
      <details>
        <summary>Specification</summary>
        <pre tabindex="0">${JSON.stringify(job.spec, null, 2)}</pre>
      </details>`;
  },

  connect(main) {
    const shown = main.querySelector(".log");
    if (!shown || shown === document.activeElement || shown.scrollTop < (ends.get(shown) ?? 0)) return;
    shown.scrollTop = shown.scrollHeight;
    ends.set(shown, shown.scrollTop);
  },

  actions: {
    cancel(_, { job }, { params: { tenant }, refresh, say }) {
      openDialog({
        content: () => ({
          title: `Cancel ${job.kind} ${job.spec.model_id}`,
          submit: "Cancel the job",
          isDestructive: true,
          body: html`<p>${job.job_id} is ${job.state}. What it has computed is lost; its run and its log stay.</p>
            ${reasonField({ label: "Reason (kept in the audit)" })}`,
        }),
        async submit({ reason }) {
          await ask("POST", `${at("tenants", tenant, "jobs", job.job_id)}/cancel`, { query: { reason } });
          await refresh();
          say("The job is being cancelled.");
        },
      });
    },

    retry(_, { job }, { params: { tenant }, refresh, say }) {
      openDialog({
        content: () => ({
          title: `Queue ${job.kind} ${job.spec.model_id} again`,
          submit: "Queue it again",
          body: html`<p>${job.job_id} is executed again as it was submitted.</p>`,
        }),
        async submit() {
          await ask("POST", `${at("tenants", tenant, "jobs", job.job_id)}/retry`);
          await refresh();
          say("The job is queued.");
        },
      });
    },
  },
};

/**
 * The plan of a training that has not ended, made once, or why there is none; null: none is asked for.
 *
 * @param {string} path @param {any} job @param {import("../main.js").Context} context
 */
async function planOf(path, job, { params: { tenant }, session, signal }) {
  if (job.kind !== "train" || ENDED.includes(job.state) || !session.may("train")) return null;
  if (plan.job === path) return plan.found;
  const { model_id: model, training } = job.spec;
  const body = { model_id: model, training, cpus: job.cpus };
  try {
    const [made, share] = await Promise.all([
      ask("POST", `${at("tenants", tenant, "jobs")}/plan`, { body, signal }),
      ask("GET", `${at("tenants", tenant)}/job-quota`, { signal }),
    ]);
    plan = { job: path, found: { plan: made, share } };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.mayPass) return error; // and it is asked for again
    plan = { job: path, found: error };
  }
  return plan.found;
}

/** @param {any} job @param {string} tenant */
function factsView(job, tenant) {
  const { job_id: id, run_id: run, started_at: started } = job;
  const model = job.spec.model_id;
  const attempts = html`<a href="${link(["t", tenant, "runs"], { parameter: `job="${id}"` })}">of all attempts</a>`;
  return facts([
    ["Model", html`<a href="${link(["t", tenant, "models", model])}">${model}</a>`],
    ["Submitted", html`<when-time datetime="${job.submitted_at}"></when-time> by ${job.submitted_by}`],
    ["Started", started && html`<when-time datetime="${started}"></when-time>`],
    ["Took", started && job.finished_at && duration(secondsOf(job))],
    ["Attempt", `${job.attempt} of ${job.max_attempts}`],
    ["Run", run && html`<a href="${link(["t", tenant, "runs", run])}">${run}</a> ${job.attempt > 1 && attempts}`],
    ["Cores", number(job.cpus)],
    ["Cost of the attempt", started && job.state !== "queued" && coreSeconds(job.cpus * secondsOf(job))],
  ]);
}

/** How long an attempt took, or said last that it has taken. @param {any} job */
const secondsOf = ({ started_at: began, finished_at: ended, progress }) =>
  ended ? (Date.parse(ended) - Date.parse(began)) / 1000 : (progress.elapsed_s ?? 0);

/** The stored error of a job. @param {any} error */
const failure = (error) => problem(new ApiError(400, { ...error, message: error.message ?? JSON.stringify(error) }));

/** The page of a version of a dataset. @param {string} tenant @param {string} reference Such as `tickets@3`. */
function datasetPage(tenant, reference) {
  const [dataset, number] = reference.split("@");
  return link(["t", tenant, "datasets", dataset], { number });
}

/** @param {string} tenant @param {any} job */
function resultView(tenant, { result }) {
  const { model_id: model, version, dataset, ...others } = result;
  const rest = Object.entries(others).filter(([, value]) => typeof value === "string" || typeof value === "number");
  if (!model && !dataset && !rest.length) return html``;
  return html`<section>
    <h2>What it made</h2>
    ${facts([
      [
        "Version",
        model &&
          version &&
          html`<a href="${link(["t", tenant, "models", model, "versions", version])}">${model} ${version}</a>`,
      ],
      ["Dataset", dataset && html`<a href="${datasetPage(tenant, dataset)}">${dataset}</a>`],
      ...rest.map(([name, value]) => [name, shown(value)]),
    ])}
  </section>`;
}
