// Train a model on a dataset: choose how, see the plan and its cost, and submit it now or at the times of a schedule.

import { ask, at } from "../core/api.js";
import { bytes, number, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { datasetsOf } from "../parts/dataset_list.js";
import { openDialog } from "../parts/dialog.js";
import { numberField, numberOf, selectField, textField } from "../parts/fields.js";
import { planView } from "../parts/plan.js";
import { button, problem } from "../parts/states.js";
import { facts } from "../parts/table.js";

/** Model type → its algorithms, the default of each type first. A test compares it with the platform. */
const ALGORITHMS = {
  classification: [
    "random_forest",
    "extra_trees",
    "gradient_boosting",
    "lightgbm",
    "logistic_regression",
    "linear_svm",
    "ridge",
    "naive_bayes",
    "decision_tree",
  ],
  regression: [
    "random_forest",
    "extra_trees",
    "gradient_boosting",
    "lightgbm",
    "linear_regression",
    "ridge",
    "lasso",
    "elastic_net",
    "linear_svm",
    "decision_tree",
  ],
  clustering: ["kmeans", "gaussian_mixture"],
  anomaly_detection: ["isolation_forest"],
};
const CALIBRATIONS = ["sigmoid", "isotonic", "temperature"];

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Train a model of ${tenant}`,

  async load({ params: { tenant }, query: { dataset }, signal }) {
    const root = at("tenants", tenant);
    const environments = await ask("GET", `${root}/environments`, { signal });
    if (!dataset) return { environments };
    const [name, version = "newest"] = dataset.split("@");
    const path = `${root}/${at("datasets", name, "versions", version)}`;
    return { environments, table: await ask("GET", path, { signal }) };
  },

  view: ({ environments, table }, { params: { tenant }, query, session }) =>
    html`<h1 tabindex="-1">Train a model</h1>
      ${
        table
          ? formView(table, environments, tenant, query, session.lacks("train"))
          : html`<p>
                On which dataset? If it is not here, <a href="${link(["t", tenant, "datasets"])}">upload a file</a>.
              </p>
              <data-table></data-table>`
      }`,

  connect(main, { table }, { params: { tenant }, query, signal }) {
    if (table) return;
    showList(main, {
      ...datasetsOf(tenant, query.q, signal),
      none: html`There is no dataset. <a href="${link(["t", tenant, "datasets"])}">Upload a file.</a>`,
      columns: [
        {
          name: "Dataset",
          cell: ({ dataset_id: id }) =>
            html`<a href="${link(["t", tenant, "training"], { dataset: id, model: query.model })}">${id}</a>`,
        },
        { name: "Rows", isNumber: true, cell: (dataset) => number(dataset.row_count) },
        { name: "Size", isNumber: true, cell: (dataset) => bytes(dataset.size_bytes) },
        { name: "Newest", cell: (dataset) => html`<when-time datetime="${dataset.created_at}"></when-time>` },
      ],
    });
  },

  actions: {
    plan(element, _, { params: { tenant }, query: { dataset }, session }) {
      if (session.may("train")) openPlan(tenant, jobOf(/** @type {HTMLFormElement} */ (element), dataset));
    },
    schedule(element, { environments }, { params: { tenant }, query: { dataset } }) {
      const form = /** @type {HTMLFormElement} */ (element.closest("form"));
      if (form.reportValidity()) openSchedule(tenant, jobOf(form, dataset), environments);
    },
  },
};

/** @param {any} table @param {any[]} environments @param {string} tenant @param {Record<string, string>} query @param {string | null} lacks */
function formView(table, environments, tenant, query, lacks) {
  const columns = table.columns.map(([name]) => name);
  const other = link(["t", tenant, "training"], { model: query.model });
  return html`<p>
      On
      <a href="${link(["t", tenant, "datasets", table.dataset_id], { number: String(table.number) })}"
        >${table.reference}</a
      >, ${number(table.row_count)} rows. <a href="${other}">Another dataset</a>
    </p>
    <section>
      <form class="narrow" data-action="plan">
        ${textField("model_id", "Model, which gets a new version", query.model ?? table.dataset_id)}
        ${choice("target", "Target", columns, { none: "none (clustering, anomaly detection)", chosen: query.target })}
        ${choice("model_type", "Model type", Object.keys(ALGORITHMS), { none: "by the target" })} ${algorithmField()}
        <details>
          <summary>Options</summary>
          <label class="field"
            ><span>Hyperparameters, one a line</span>
            <textarea name="hyperparameters" rows="3" placeholder="n_estimators=200" spellcheck="false"></textarea>
          </label>
          ${selectField(
            "ignore",
            "Columns that are not used",
            columns.map((column) => html`<option value="${column}">${column}</option>`),
            true,
          )}
          ${choice("group", "Hold out together rows with the same", columns)}
          ${choice("time", "Hold out the latest rows by", columns)}
          ${choice("calibration", "Calibrate probabilities by", CALIBRATIONS)}
          ${numberField("cross_validation", "Folds of a cross-validation")}
          ${numberField("priority", "Priority among the jobs of the tenant, -100 to 100")}
        </details>
        ${numberField("cpus", "Cores", "1")}
        ${choice(
          "promote_to",
          "Move an environment to the new version",
          environments.map(({ environment }) => environment),
        )}
        <div class="buttons">
          <button type="submit" class="primary" ${lacks && html`aria-disabled="true"`}>Plan…</button>
          ${button({ action: "schedule", text: "Schedule…", refused: lacks })}
        </div>
        ${lacks && html`<p class="quiet">${lacks}</p>`}
      </form>
    </section>`;
}

/**
 * @param {string} name @param {string} label @param {string[]} values
 * @param {{none?: string, chosen?: string}} [options]
 */
const choice = (name, label, values, { none = "no", chosen } = {}) =>
  selectField(
    name,
    label,
    html`<option value="">${none}</option>
      ${values.map((value) => html`<option value="${value}" ${value === chosen && html`selected`}>${value}</option>`)}`,
  );

const algorithmField = () =>
  selectField(
    "algorithm",
    "Algorithm",
    html`<option value="">selected by cross-validation</option>
      ${Object.entries(ALGORITHMS).map(
        ([type, names]) =>
          html`<optgroup label="${words(type)}">
            ${names.map((name) => html`<option value="${name}">${words(name)}</option>`)}
          </optgroup>`,
      )}`,
  );

/** The job of a form, as the API takes it. @param {HTMLFormElement} form @param {string} dataset */
function jobOf(form, dataset) {
  const { model_id: model, cpus, priority, promote_to: environment, algorithm, ...training } = given(form);
  const hyperparameters = { ...(algorithm && { algorithm }), ...training.hyperparameters };
  const job = { cpus, priority, promote_to: environment };
  return { kind: "train", model_id: model, training: { ...training, dataset, hyperparameters }, ...stated(job) };
}

/** The fields that were filled in. @param {HTMLFormElement} form @returns {Record<string, any>} */
function given(form) {
  const fields = new FormData(form);
  const texts = /** @type {Record<string, string>} */ (Object.fromEntries(fields));
  const numbers = ["cpus", "priority", "cross_validation"].map((name) => [name, numberOf(texts[name])]);
  return stated({
    ...texts,
    ...Object.fromEntries(numbers),
    ignore: fields.getAll("ignore"),
    hyperparameters: parametersOf(texts.hyperparameters),
  });
}

/** What has a value. @param {Record<string, any>} fields */
const stated = (fields) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => ![undefined, null, ""].includes(value)));

/** Lines of name=value; a value is JSON, or else a text. @param {string} text */
function parametersOf(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(
    lines.map((line) => {
      const [, name, value] = line.match(/^\s*([^=\s]+)\s*=\s*(.*?)\s*$/) ?? [];
      if (!name) throw new Error(`The hyperparameter “${line}” is not name=value.`);
      try {
        return [name, JSON.parse(value)];
      } catch {
        return [name, value];
      }
    }),
  );
}

/** @param {Record<string, any>} hyperparameters */
function algorithmText({ algorithm, ...others }) {
  if (algorithm !== undefined) return words(String(algorithm));
  return Object.keys(others).length ? "the default of the model type" : "selected by cross-validation";
}

/** Show the plan of a job, and submit it. @param {string} tenant @param {any} job */
function openPlan(tenant, job) {
  const { model_id: model, training, cpus = 1, promote_to: environment } = job;
  // However often it is sent, it is one job.
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
  /** @type {any} */
  let plan;
  /** @type {any} */
  let share;
  /** @type {unknown} */
  let refusal;
  openDialog({
    content: () => ({
      title: `Train ${model} of ${tenant}`,
      submit: "Submit the job",
      refused: plan ? null : refusal ? "It would be refused." : "The plan is being made.",
      body: html`${facts(
          [
            ["Dataset", training.dataset],
            ["Target", training.target ?? "none"],
            ["Algorithm", algorithmText(training.hyperparameters)],
            ["Then", `a new version of ${model}; ${environment ? `${environment} moves to it` : "no environment moves"}`],
          ],
          "plan",
        )}
        ${refusal ? problem(refusal) : plan && planView(plan, cpus, share)}`,
    }),
    async opened(redraw) {
      const root = at("tenants", tenant);
      const wanted = { model_id: model, training, cpus };
      try {
        [plan, share] = await Promise.all([
          ask("POST", `${root}/jobs/plan`, { body: wanted }),
          ask("GET", `${root}/job-quota`),
        ]);
      } catch (error) {
        refusal = error;
      }
      redraw();
    },
    async submit() {
      const body = { ...job, idempotency_key: key };
      const { job_id: made } = await ask("POST", `${at("tenants", tenant)}/jobs`, { body });
      location.hash = link(["t", tenant, "jobs", made]);
    },
  });
}

/** Submit a job at the times of a schedule. @param {string} tenant @param {any} job @param {any[]} environments */
function openSchedule(tenant, job, environments) {
  const { model_id: model, training } = job;
  const isFixed = training.dataset.includes("@");
  openDialog({
    content: () => ({
      title: `Schedule the training of ${model} of ${tenant}`,
      submit: "Create the schedule",
      body: html`<p>
          Each job trains on ${isFixed ? training.dataset : html`the newest version of ${training.dataset}`}, with the
          rights of your key.
        </p>
        ${textField("name", "Name", "nightly")}
        ${textField("cron", "Minute, hour, day of the month, month, day of the week", "0 3 * * *")}
        ${textField("timezone", "Time zone", Intl.DateTimeFormat().resolvedOptions().timeZone)}
        ${choice(
          "on_drift",
          "Only on an alert of quality or drift, with the new version as a canary, in",
          environments.map(({ environment }) => environment),
          { none: "no: at each time" },
        )}`,
    }),
    async submit({ name, cron, timezone, on_drift: environment }) {
      const rule = environment ? { on_drift: { environment } } : {};
      const path = `${at("tenants", tenant)}/schedules`;
      const { name: made } = await ask("POST", path, { body: { name, cron, timezone, job, ...rule } });
      location.hash = link(["t", tenant, "schedules", made]);
    },
  });
}
