// Forms of jobs: what is filled in is in the address, a refusal is shown beside its field, and a second step shows what is
// submitted, now or at the times of a schedule.

import { ask, at } from "../core/api.js";
import { counted, words } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { openDialog } from "./dialog.js";
import { ruleFields, ruleOf } from "./drift_rule.js";
import {
  choiceField,
  field,
  linesField,
  numberField,
  problemSlot,
  selectField,
  showBeside,
  showRefusal,
  textField,
  valuesOf,
} from "./fields.js";
import { button } from "./states.js";
import { facts } from "./table.js";
import { typeAhead } from "./type_ahead.js";

/** @typedef {import("../main.js").Context} Context */
/** @typedef {ReturnType<typeof html>} Html */

/** Model type → its algorithms, the default of each type first. A test compares it with the platform. */
export const ALGORITHMS = {
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

/** What a form works with: the environments, and the table that is chosen. @param {Context} context */
export async function loadForm({ params: { tenant }, query: { dataset }, signal }) {
  const root = at("tenants", tenant);
  const environments = ask("GET", `${root}/environments`, { signal });
  const [name, version = "newest"] = (dataset ?? "").split("@");
  const table = name ? ask("GET", `${root}/${at("datasets", name, "versions", version)}`, { signal }) : null;
  const [policies, found] = await Promise.all([environments, table]);
  return {
    environments: policies.map(({ environment }) => environment),
    table: found,
    columns: (found?.columns ?? []).map(([column]) => column),
  };
}

/**
 * Keep what is filled in in the address, and show the columns of another table.
 *
 * @param {HTMLElement} main @param {string[]} reloads Fields on which others depend. @param {Context} context
 */
export function keepForm(main, reloads, { refresh }) {
  const form = /** @type {HTMLFormElement} */ (main.querySelector("form"));
  form.oninput = ({ target }) => {
    const control = /** @type {HTMLInputElement} */ (target);
    filter({ [control.name]: textOf(control) });
    if (reloads.includes(control.name)) refresh();
  };
}

/** @param {HTMLInputElement | HTMLSelectElement} control */
function textOf(control) {
  if (control instanceof HTMLSelectElement) return [...control.selectedOptions].map(({ value }) => value).join("\n");
  return control.type === "checkbox" ? (control.checked ? "yes" : "no") : control.value;
}

/** @param {string} tenant @param {Record<string, string>} query @param {any} table */
export const datasetField = (tenant, { dataset = "" }, table) =>
  html`${typeAhead("dataset", at("tenants", tenant), dataset, { name: "dataset", label: "Dataset" })}
    <p class="quiet">
      ${
        table
          ? html`<a href="${link(["t", tenant, "datasets", table.dataset_id], { number: String(table.number) })}"
                >${table.reference}</a
              >, ${counted(table.row_count, "row")}. A name alone is its newest version, name@3 its version 3.`
          : html`If it is not here, <a href="${link(["t", tenant, "datasets"])}">upload a file</a>.`
      }
    </p>`;

/** @param {string} name @param {string} label @param {string[]} columns @param {string} [chosen] Lines. */
export const columnsField = (name, label, columns, chosen = "") => {
  const names = chosen.split("\n");
  const option = (column) =>
    html`<option data-key="${column}" value="${column}" ${names.includes(column) && html`selected`}>${column}</option>`;
  return selectField(name, label, columns.map(option), true);
};

/** The model that gets a version, what is predicted, and its type. @param {string} tenant @param {Record<string, string>} query @param {any} data */
export const modelFields = (tenant, query, { table, columns }) =>
  html`${typeAhead("model", at("tenants", tenant), query.model ?? table?.dataset_id ?? "", { name: "model", label: "Model, which gets a new version", isNew: true })}
  ${choiceField("target", "Target", columns, { none: "none (clustering, anomaly detection)", chosen: query.target })}
  ${choiceField("model_type", "Model type", Object.keys(ALGORITHMS), { none: "by the target", chosen: query.model_type })}`;

/** @param {string} none What it means to choose none. @param {string} [chosen] */
export const algorithmField = (none, chosen) =>
  selectField(
    "algorithm",
    "Algorithm",
    html`<option value="">${none}</option>
      ${Object.entries(ALGORITHMS).map(
        ([type, names]) =>
          html`<optgroup label="${words(type)}">
            ${names.map((name) => html`<option value="${name}" ${name === chosen && html`selected`}>${words(name)}</option>`)}
          </optgroup>`,
      )}`,
  );

/** How it is trained, beyond what everybody fills in. @param {string} tenant @param {Record<string, string>} query @param {string[]} columns */
export const trainingFields = (tenant, query, columns) =>
  html`${columnsField("ignore", "Columns that are not used", columns, query.ignore)}
  ${linesField("kinds", "Kinds of columns where they are inferred wrongly", query.kinds, "zip=category")}
  ${typeAhead("dataset", at("tenants", tenant), query.validation_dataset ?? "", { name: "validation_dataset", label: "Measure on the dataset, not on held-out rows", isOptional: true })}
  ${choiceField("group", "Hold out together rows with the same", columns, { chosen: query.group })}
  ${choiceField("time", "Hold out the latest rows by", columns, { chosen: query.time })}
  ${numberField("split_seed", "Seed of the rows that are held out", query.split_seed)}
  ${choiceField("weight", "Weight rows by", columns, { chosen: query.weight })}
  ${field("rare_classes", "Rare classes", query.rare_classes, html`placeholder="keep, drop, drop:5 or merge:other"`)}
  ${choiceField("calibration", "Calibrate probabilities by", CALIBRATIONS, { chosen: query.calibration })}
  ${numberField("cross_validation", "Folds of a cross-validation", query.cross_validation)}
  ${field("version", "Name of the version, in place of the next number", query.version)}
  ${field("parent_version", "Version that it is derived from", query.parent_version)}
  ${linesField("metadata", "Notes on the version", query.metadata, "card=Routes tickets to teams.")}`;

/** What each job takes. @param {Record<string, string>} query */
export const jobOptionFields = (query) =>
  html`${numberField("priority", "Priority among the jobs of the tenant, -100 to 100", query.priority)}
  ${numberField("max_attempts", "Starts at most, if its process is lost", query.max_attempts)}`;

/** @param {Record<string, string>} query @param {string[]} environments */
export const promoteField = (query, environments) =>
  choiceField("promote_to", "Move an environment to the new version", environments, { chosen: query.promote_to });

/** The end of a form. @param {string} next What its button opens. @param {string | null} lacks Why it can't be submitted. */
export const formButtons = (next, lacks) =>
  html`${problemSlot()}
    <div class="buttons">
      <button type="submit" class="primary" ${lacks && html`aria-disabled="true"`}>${next}</button>
      ${button({ action: "schedule", text: "Schedule…", refused: lacks })}
    </div>
    ${lacks && html`<p class="quiet">${lacks}</p>`}`;

const OF_JOB = ["cpus", "priority", "max_attempts", "promote_to"];

/** The values with some names, those of any job by default, and the others. @param {Record<string, any>} values @param {string[]} [names] */
export function split(values, names = OF_JOB) {
  const [some, others] = [/** @type {Record<string, any>} */ ({}), /** @type {Record<string, any>} */ ({})];
  for (const [name, value] of Object.entries(values)) (names.includes(name) ? some : others)[name] = value;
  return [some, others];
}

/**
 * The job of a form; null: a field can't be read, and says why.
 *
 * @param {HTMLFormElement} form @param {(values: Record<string, any>) => any} jobOf
 */
export function made(form, jobOf) {
  showBeside(form);
  try {
    return jobOf(valuesOf(form));
  } catch (error) {
    showRefusal(form, error);
    return null;
  }
}

/** What follows of a version. @param {any} job */
export const thenText = ({ model_id: model, promote_to: environment }) =>
  `a new version of ${model}; ${environment ? `${environment} moves to it` : "no environment moves"}`;

/** A job with a key: however often it is sent, it is one. @param {any} job */
export const keyed = (job) => ({
  ...job,
  idempotency_key: crypto.getRandomValues(new Uint32Array(4)).join("-"),
});

/**
 * Show what a job is, and submit it.
 *
 * @param {object} options
 * @param {string} options.title
 * @param {any[][]} options.rows Facts of it.
 * @param {Html} [options.more]
 * @param {any} options.job As the API takes it.
 * @param {HTMLFormElement} options.form That a refusal is shown in.
 * @param {string} options.tenant
 */
export function openJob({ title, rows, more, job, form, tenant }) {
  const body = keyed(job);
  openDialog({
    behind: form,
    content: () => ({ title, submit: "Submit the job", body: html`${facts(rows, "plan")} ${more}` }),
    async submit() {
      const { job_id: made } = await ask("POST", `${at("tenants", tenant)}/jobs`, { body });
      location.hash = link(["t", tenant, "jobs", made]);
    },
  });
}

/**
 * Submit a job at the times of a schedule.
 *
 * @param {object} options
 * @param {string} options.title
 * @param {string} options.dataset
 * @param {any} options.job As the API takes it.
 * @param {HTMLFormElement} options.form That a refusal is shown in.
 * @param {string} options.tenant
 * @param {string[]} [options.environments] That a new version may be tried in; without them it makes none.
 */
export function openSchedule({ title, dataset, job, form, tenant, environments }) {
  let isOnDrift = false;
  openDialog({
    behind: form,
    content: () => ({
      title,
      submit: "Create the schedule",
      body: html`<p>
          Each job reads ${dataset.includes("@") ? dataset : html`the newest version of ${dataset}`}, with the rights of
          your key.
        </p>
        ${textField("name", "Name", "nightly")}
        ${textField("cron", "Minute, hour, day of the month, month, day of the week", "0 3 * * *")}
        ${textField("timezone", "Time zone", Intl.DateTimeFormat().resolvedOptions().timeZone)}
        ${
          environments &&
          choiceField(
            "on_drift",
            "Only on an alert of quality or drift, with the new version as a canary, in",
            environments,
            { none: "no: at each time" },
          )
        }
        ${isOnDrift && ruleFields()}`,
    }),
    changed(control, redraw) {
      if (control.name !== "on_drift") return;
      isOnDrift = control.value !== "";
      redraw();
    },
    async submit({ name, cron, timezone, on_drift: environment, ...typed }) {
      const body = { name, cron, timezone, job, on_drift: environment ? ruleOf(environment, typed) : null };
      const { name: made } = await ask("POST", `${at("tenants", tenant)}/schedules`, { body });
      location.hash = link(["t", tenant, "schedules", made]);
    },
  });
}
