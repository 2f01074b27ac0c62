// Search for the hyperparameters of a model: what is searched and how long, submitted now or at the times of a schedule.

import { ask, at } from "../core/api.js";
import { counted, duration, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { choiceField, field, linesField, numberField, showRefusal, tickField } from "../parts/fields.js";
import * as form from "../parts/job_form.js";
import { coreSeconds, usedFact } from "../parts/plan.js";

/** What a configuration can be chosen by; the API says which of them fit. A test compares it with the platform. */
const METRICS = [
  "accuracy",
  "balanced_accuracy",
  "f1_macro",
  "log_loss",
  "roc_auc",
  "r2",
  "mae",
  "rmse",
  "silhouette",
  "davies_bouldin",
  "adjusted_rand",
  "average_precision",
];
const SAMPLERS = ["random", "grid"];
const OF_SEARCH = ["algorithm", "space", "sampler", "folds", "trials", "seconds", "cpu_seconds", "metric", "seed"];
const TRIALS = 60; // of the API's default

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Search for hyperparameters of ${tenant}`,
  topics: [],
  load: form.loadForm,

  view: (data, { params: { tenant }, query, session }) =>
    html`<h1 tabindex="-1">Search for hyperparameters</h1>
      <p>
        Each trial trains with other hyperparameters and is measured by cross-validation; the best of them become a
        version. Or
        <a
          href="${link(["t", tenant, "training"], { dataset: query.dataset, model: query.model, target: query.target })}"
          >train once</a
        >.
      </p>
      <section>
        <form class="narrow" data-action="review">
          ${form.datasetField(tenant, query, data.table)} ${form.modelFields(tenant, query, data)}
          ${form.algorithmField("auto: a linear model, boosted trees and a random forest", query.algorithm)}
          ${linesField("space", "Hyperparameters that are searched; none: the default of the algorithm", query.space, "learning_rate=log:0.001:0.3")}
          <p class="quiet">
            A range such as <code>2..12</code>, <code>0.1..0.9:0.2</code> with a step or <code>log:0.001:100</code>, or
            choices such as <code>["sqrt", 0.3]</code>.
          </p>
          ${numberField("trials", "Trials at most", query.trials ?? String(TRIALS))}
          ${numberField("seconds", "Seconds at most", query.seconds)}
          ${numberField("cpu_seconds", "Core-seconds of all trials at most", query.cpu_seconds)}
          ${choiceField("metric", "The best is chosen by", METRICS, { none: "the metric of the model type", chosen: query.metric })}
          <details ${OPTIONS.some((name) => name in query) && html`open`}>
            <summary>Options</summary>
            ${choiceField("sampler", "Configurations are chosen by", SAMPLERS, { none: "optuna", chosen: query.sampler })}
            ${numberField("folds", "Folds of the cross-validation", query.folds)}
            ${tickField("early_stopping", "End bad trials early", query.early_stopping !== "no")}
            ${numberField("seed", "Seed of folds and configurations", query.seed)}
            ${linesField("hyperparameters", "Hyperparameters that are the same in all trials", query.hyperparameters, "class_weight=balanced")}
            ${form.trainingFields(tenant, query, data.columns)} ${form.jobOptionFields(query)}
          </details>
          ${numberField("cpus", "Cores, each of which does one trial at a time", query.cpus ?? "1")}
          ${form.promoteField(query, data.environments)} ${form.formButtons("Review…", session.lacks("train"))}
        </form>
      </section>`,

  connect: (main, _, context) => form.keepForm(main, ["dataset"], context),

  actions: {
    async review(element, _, { params: { tenant }, session, signal }) {
      const own = /** @type {HTMLFormElement} */ (element);
      const job = session.may("train") && form.made(own, jobOf);
      if (!job) return;
      try {
        const share = await ask("GET", `${at("tenants", tenant)}/job-quota`, { signal });
        const title = `Search for hyperparameters of ${job.model_id} of ${tenant}`;
        form.openJob({ title, rows: factsOf(job, share), job, form: own, tenant });
      } catch (error) {
        if (!signal.aborted) showRefusal(own, error);
      }
    },
    schedule(element, { environments }, { params: { tenant } }) {
      const own = /** @type {HTMLFormElement} */ (element.closest("form"));
      const job = own.reportValidity() && form.made(own, jobOf);
      if (!job) return;
      const title = `Schedule the search for hyperparameters of ${job.model_id} of ${tenant}`;
      form.openSchedule({ title, dataset: job.training.dataset, job, form: own, tenant, environments });
    },
  },
};

/** The fields of the options that are most often filled in. */
const OPTIONS = [
  "sampler",
  "folds",
  "early_stopping",
  "seed",
  "hyperparameters",
  "ignore",
  "group",
  "time",
  "priority",
];

/** The job of a form, as the API takes it. @param {Record<string, any>} values */
function jobOf(values) {
  const [job, { model, early_stopping: stops, ...others }] = form.split(values);
  const [search, training] = form.split(others, OF_SEARCH);
  return { kind: "tune", model_id: model, training, search: { ...search, early_stopping: stops }, ...job };
}

/** What a search does, and may cost at most. @param {any} job @param {any} share */
function factsOf(job, share) {
  const { training, search, cpus = 1 } = job;
  const bounds = [search.cpu_seconds, search.seconds && cpus * search.seconds].filter(
    (each) => typeof each === "number",
  );
  const algorithm = search.algorithm ? words(search.algorithm) : "a linear model, boosted trees and a random forest";
  return [
    ["Dataset", training.dataset],
    ["Target", training.target ?? "none"],
    ["Algorithm", algorithm],
    ["Searched", search.space ? Object.keys(search.space).join(", ") : "the default space"],
    ["Trials at most", typeof search.trials === "number" ? counted(search.trials, "trial") : "all of a grid"],
    ["Takes at most", typeof search.seconds === "number" ? duration(search.seconds) : "as long as its trials do"],
    ["Costs at most", bounds.length ? coreSeconds(Math.min(...bounds)) : "unbounded: give seconds or core-seconds"],
    usedFact(share),
    ["Then", form.thenText(job)],
  ];
}
