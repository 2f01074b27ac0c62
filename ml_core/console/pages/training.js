// Train a model on a dataset: choose how, see the plan and its cost, and submit it now or at the times of a schedule.

import { ask, at } from "../core/api.js";
import { words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { linesField, numberField, showRefusal } from "../parts/fields.js";
import * as form from "../parts/job_form.js";
import { openDialog } from "../parts/dialog.js";
import { planView } from "../parts/plan.js";
import { button } from "../parts/states.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Train a model of ${tenant}`,
  topics: [],
  load: form.loadForm,

  view: (data, { params: { tenant }, query, session }) =>
    html`<h1 tabindex="-1">Train a model</h1>
      <p>
        Or
        <a href="${link(["t", tenant, "search"], { dataset: query.dataset, model: query.model, target: query.target })}"
          >search for its hyperparameters</a
        >.
      </p>
      <section>
        <form class="narrow" data-action="plan">
          ${form.datasetField(tenant, query, data.table)} ${form.modelFields(tenant, query, data)}
          ${form.algorithmField("selected by cross-validation", query.algorithm)}
          <details ${Object.keys(query).some((name) => !SHOWN.includes(name)) && html`open`}>
            <summary>Options</summary>
            ${linesField("hyperparameters", "Hyperparameters", query.hyperparameters, "n_estimators=200")}
            ${numberField("selection_seconds", "Seconds that the selection may take", query.selection_seconds)}
            ${form.trainingFields(tenant, query, data.columns)} ${form.jobOptionFields(query)}
          </details>
          ${numberField("cpus", "Cores", query.cpus ?? "1")} ${form.promoteField(query, data.environments)}
          ${form.formButtons("Plan…", session.lacks("train"))}
          ${
            session.isOperator &&
            html`<div class="buttons">
              ${button({ action: "batch", text: "For each tenant…", refused: session.cannotOperate() })}
            </div>`
          }
        </form>
      </section>`,

  connect: (main, _, context) => form.keepForm(main, ["dataset"], context),

  actions: {
    plan: (element, _, context) => openPlan(/** @type {HTMLFormElement} */ (element), context),
    schedule(element, { environments }, { params: { tenant } }) {
      const own = /** @type {HTMLFormElement} */ (element.closest("form"));
      if (!own.reportValidity()) return;
      const job = form.made(own, jobOf);
      if (!job) return;
      const { model_id: model, training } = job;
      const title = `Schedule the training of ${model} of ${tenant}`;
      form.openSchedule({ title, dataset: training.dataset, job, form: own, tenant, environments });
    },
    batch(element) {
      const own = /** @type {HTMLFormElement} */ (element.closest("form"));
      const job = own.reportValidity() && form.made(own, jobOf);
      if (job) openBatch(own, job);
    },
  },
};

/** Submit a job for each tenant. @param {HTMLFormElement} own @param {any} job */
function openBatch(own, job) {
  const body = form.keyed(job);
  openDialog({
    behind: own,
    content: () => ({
      title: `Train ${job.model_id} of each tenant`,
      submit: "Submit the batch",
      body: html`<p>
        Each tenant that has the dataset ${job.training.dataset} gets a job that trains ${job.model_id} on its own rows,
        with the rights of the platform. A tenant whose quota does not permit it is left out.
      </p>`,
    }),
    async submit() {
      const { batch_id: made } = await ask("POST", "job-batches", { body });
      location.hash = link(["batches", made]);
    },
  });
}

/** The fields outside of the options. */
const SHOWN = ["dataset", "model", "target", "model_type", "algorithm", "cpus", "promote_to"];

/** The job of a form, as the API takes it. @param {Record<string, any>} values */
function jobOf(values) {
  const [job, { model, algorithm, hyperparameters, ...training }] = form.split(values);
  const given = { ...(algorithm && { algorithm }), ...hyperparameters };
  return { kind: "train", model_id: model, training: { ...training, hyperparameters: given }, ...job };
}

/** @param {Record<string, any>} hyperparameters */
function algorithmText({ algorithm, ...others }) {
  if (algorithm !== undefined) return words(String(algorithm));
  return Object.keys(others).length ? "the default of the model type" : "selected by cross-validation";
}

/** Ask for the plan of a job, show it, and submit it. @param {HTMLFormElement} own @param {import("../main.js").Context} context */
async function openPlan(own, { params: { tenant }, session, signal, say }) {
  const job = session.may("train") && form.made(own, jobOf);
  if (!job) return;
  const { model_id: model, training, cpus = 1 } = job;
  const root = at("tenants", tenant);
  say("The plan is being made.");
  try {
    const [plan, share] = await Promise.all([
      ask("POST", `${root}/jobs/plan`, { body: { model_id: model, training, cpus }, signal }),
      ask("GET", `${root}/job-quota`, { signal }),
    ]);
    const rows = [
      ["Dataset", training.dataset],
      ["Target", training.target ?? "none"],
      ["Algorithm", algorithmText(training.hyperparameters)],
      ["Then", form.thenText(job)],
    ];
    form.openJob({
      title: `Train ${model} of ${tenant}`,
      rows,
      more: planView(plan, cpus, share),
      job,
      form: own,
      tenant,
    });
  } catch (error) {
    if (!signal.aborted) showRefusal(own, error);
  } finally {
    if (!signal.aborted) say("");
  }
}
