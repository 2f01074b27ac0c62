// Predict every row of a dataset into another one: with which version, what is repeated, and what a misfit does.

import { ask, at } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { choiceField, numberField, selectField, showRefusal, tickField } from "../parts/fields.js";
import * as form from "../parts/job_form.js";
import { usedFact } from "../parts/plan.js";
import { typeAhead } from "../parts/type_ahead.js";

const ON_ERROR = { fail: "fails the job", null: "has no prediction, and a column says why" };

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Predict a dataset of ${tenant}`,
  topics: [],
  load: form.loadForm,

  view: ({ environments, table, columns }, { params: { tenant }, query, session }) => {
    const root = at("tenants", tenant);
    const { model = "", on_error: misfits = "fail" } = query;
    return html`<h1 tabindex="-1">Predict a dataset</h1>
      <p>The predictions are the next version of a dataset, from which they can be downloaded.</p>
      <section>
        <form class="narrow" data-action="review">
          ${form.datasetField(tenant, query, table)}
          ${typeAhead("model", root, model, { name: "model", label: "Model" })}
          ${
            model &&
            typeAhead("version", `${root}/${at("models", model)}`, query.version ?? "", {
              name: "version",
              label: "Version that predicts, whatever environments serve",
              isOptional: true,
            })
          }
          ${choiceField("environment", "Environment whose version predicts", environments, { none: "production, or the newest version if that serves nothing", chosen: query.environment })}
          ${typeAhead("dataset", root, query.output ?? "", { name: "output", label: "Dataset that gets the predictions as its next version", isNew: true })}
          ${tickField("proba", "The probability of each class is a column", query.proba === "yes")}
          ${form.columnsField("keep", "Columns to repeat, such as a key", columns, query.keep)}
          ${selectField(
            "on_error",
            "A row that does not fit the model",
            Object.entries(ON_ERROR).map(
              ([value, text]) => html`<option value="${value}" ${value === misfits && html`selected`}>${text}</option>`,
            ),
          )}
          <details ${("priority" in query || "max_attempts" in query) && html`open`}>
            <summary>Options</summary>
            ${form.jobOptionFields(query)}
          </details>
          ${numberField("cpus", "Cores", query.cpus ?? "1")} ${form.formButtons("Review…", session.lacks("train"))}
        </form>
      </section>`;
  },

  connect: (main, _, context) => form.keepForm(main, ["dataset", "model"], context),

  actions: {
    async review(element, { table }, { params: { tenant }, session, signal }) {
      const own = /** @type {HTMLFormElement} */ (element);
      const job = session.may("train") && form.made(own, jobOf);
      if (!job) return;
      try {
        const share = await ask("GET", `${at("tenants", tenant)}/job-quota`, { signal });
        const title = `Predict ${job.dataset} of ${tenant}`;
        form.openJob({ title, rows: factsOf(job, table, share), job, form: own, tenant });
      } catch (error) {
        if (!signal.aborted) showRefusal(own, error);
      }
    },
    schedule(element, _, { params: { tenant } }) {
      const own = /** @type {HTMLFormElement} */ (element.closest("form"));
      const job = own.reportValidity() && form.made(own, jobOf);
      if (!job) return;
      const title = `Schedule the prediction of ${job.dataset} of ${tenant}`;
      form.openSchedule({ title, dataset: job.dataset, job, form: own, tenant });
    },
  },
};

/** The job of a form, as the API takes it. @param {Record<string, any>} values */
function jobOf({ model, ...others }) {
  return { kind: "predict", model_id: model, ...others };
}

/** @param {any} job @param {any} table @param {any} share */
function factsOf({ model_id: model, version, environment, output, keep, on_error: misfits }, table, share) {
  const by = version
    ? `version ${version}`
    : environment
      ? `what ${environment} serves`
      : "what production serves, or else the newest version";
  return [
    ["Rows", html`${table.reference} <span class="quiet">${counted(table.row_count, "row")}</span>`],
    ["Model", `${model}, ${by}`],
    ["Into", `the next version of ${output}`],
    ["Repeats", keep?.join(", ") ?? "no column"],
    ["A row that does not fit", ON_ERROR[/** @type {keyof typeof ON_ERROR} */ (misfits)]],
    usedFact(share),
  ];
}
