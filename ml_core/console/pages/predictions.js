// What a model answered: its rows with their labels, and what they say of its quality and of the drift since training.

import { ApiError, ask, at } from "../core/api.js";
import { number, percent, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { link, turn } from "../core/router.js";
import { acting, actsView } from "../parts/acts.js";
import { showList } from "../parts/data_table.js";
import { openDialog } from "../parts/dialog.js";
import { field, fieldsOf, selectField, textField } from "../parts/fields.js";
import { badge, button, empty, problem, refusal } from "../parts/states.js";
import { table } from "../parts/table.js";

const FILTERS = { version: "Version", environment: "Environment", request_id: "Request" };
const TIMES = { since: "Since", until: "Until" };
/** What the log may keep of a tenant. A test compares it with the platform. */
const POLICIES = {
  nothing: "nothing",
  digest: "predictions and digests of their rows",
  inputs: "predictions and their rows",
};
const DAYS = 7;

/** @type {import("../main.js").Page} */
export default {
  title: ({ model }) => `Predictions of ${model}`,
  topics: [],
  everyS: 60, // the reports read days of predictions

  async load({ params: { tenant, model }, query, signal }) {
    const environment = query.environment || "production";
    const report = (name) =>
      ask("GET", `${at("tenants", tenant, "models", model)}/${name}`, { query: { environment }, signal }).catch(
        refusal,
      );
    const policy = ask("GET", `${at("tenants", tenant)}/prediction-policy`, { signal });
    const day = (ms) => new Date(ms).toISOString().slice(0, 10);
    const days = { since: day(Date.now() - (DAYS - 1) * 86_400_000), until: day(Date.now()) };
    const losses = ask("GET", `${at("tenants", tenant)}/prediction-losses`, { query: days, signal });
    const [quality, drift, kept, lost] = await Promise.all([report("quality"), report("drift"), policy, losses]);
    const missing = lost.filter((loss) => loss.model_id === model);
    return { environment, quality, drift, policy: kept.policy, missing };
  },

  view({ environment, quality, drift, policy, missing }, context) {
    const {
      params: { tenant, model },
      query,
      session,
    } = context;
    return html` <p class="quiet"><a href="${link(["t", tenant, "models", model])}">${model}</a></p>
      <h1 tabindex="-1">Predictions</h1>
      <section>
        <h2>Quality in ${environment}</h2>
        ${quality instanceof ApiError ? problem(quality) : qualityView(quality)}
      </section>
      <section>
        <h2>Drift in ${environment}</h2>
        ${drift instanceof ApiError ? problem(drift) : driftView(drift)}
      </section>
      <section>
        <h2>Rows</h2>
        <form class="line" data-action="search" role="search">
          ${Object.entries(FILTERS).map(([name, label]) => field(name, label, query[name]))}
          ${Object.entries(TIMES).map(([name, label]) => field(name, label, local(query[name]), html`type="datetime-local"`))}
          <button type="submit">Search</button>
        </form>
        <p class="quiet">
          Newest first; without a time, of the last day. The log of this tenant keeps
          ${POLICIES[/** @type {keyof typeof POLICIES} */ (policy)] ?? policy}. ${session.lacks("label")}
        </p>
        ${missing.map(
          ({ day, reason, rows }) =>
            html`<p class="quiet" data-key="loss-${day}-${reason}">
              ${number(rows)} rows of ${day} are missing: ${reason}
            </p>`,
        )}
        <data-table></data-table>
        ${actsView("Prediction log", actsOf({ policy }, context))}
      </section>`;
  },

  connect(main, _, { params: { tenant, model }, query, session, signal }) {
    const times = Object.keys(TIMES).map((name) => [name, utc(query[name])]);
    const filters = Object.keys(FILTERS).map((name) => [name, query[name]]);
    const wanted = { model, ...Object.fromEntries([...filters, ...times]) };
    showList(main, {
      label: "Rows",
      key: (row) => `${row.request_id}/${row.row}`,
      load: (page) =>
        ask("GET", at("tenants", tenant, "predictions"), {
          query: { ...wanted, limit: page.limit, cursor: page.cursor },
          signal,
        }),
      none: "The log has no such row.",
      columns: [
        { name: "When", cell: (row) => html`<when-time datetime="${row.at}"></when-time>` },
        { name: "Prediction", cell: predictionView },
        { name: "Label", cell: (row) => labelView(row, session.lacks("label")) },
        { name: "Version", cell: (row) => html`${row.version} ${badge(row.rollout)}` },
        { name: "Took", isNumber: true, cell: (row) => `${number(row.latency_ms)} ms` },
        {
          name: "Request",
          cell: (row) => html`<code>${row.request_id}</code> <span class="quiet">row ${row.row}</span>`,
        },
        {
          name: "Inputs",
          cell: ({ inputs }) =>
            inputs &&
            html`<details>
              <summary>Inputs</summary>
              <pre tabindex="0">${JSON.stringify(inputs, null, 2)}</pre>
            </details>`,
        },
      ],
    });
  },

  actions: {
    act: acting(actsOf),

    search(element) {
      const fields = fieldsOf(element);
      // In UTC, so that it is the same time for a reader in another zone.
      const times = Object.fromEntries(Object.keys(TIMES).map((name) => [name, utc(fields[name])]));
      turn({ ...fields, ...times });
    },

    label(element, _, { params: { tenant, model }, refresh, say }) {
      const { request = "", row = "", prediction = "" } = element.dataset;
      openDialog({
        content: () => ({
          title: `Label row ${row} of ${request}`,
          submit: "Label",
          body: html`<p>
              The version answered ${prediction}. A later label replaces an earlier one; labels decide what is measured
              of the model's quality.
            </p>
            ${textField("label", "The truth")}`,
        }),
        async submit({ label }) {
          const body = { model_id: model, row: Number(row), label: alike(label, JSON.parse(prediction)) };
          await ask("POST", `${at("tenants", tenant, "predictions", request)}/labels`, { body });
          await refresh();
          say("The label is recorded.");
        },
      });
    },
  },
};

/**
 * What can be done to the log of a tenant.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act>}
 */
function actsOf({ policy }, { params: { tenant }, session }) {
  return {
    policy: {
      label: "Change what is kept",
      of: `the prediction log of ${tenant}`,
      refused: session.lacks("admin"),
      what: "Of all models of the tenant, from now on; what is kept already stays. Drift needs the rows.",
      fields: selectField(
        "policy",
        "The log keeps",
        Object.entries(POLICIES).map(
          ([value, text]) => html`<option value="${value}" ${value === policy && html`selected`}>${text}</option>`,
        ),
      ),
      run: (body) => ask("PUT", `${at("tenants", tenant)}/prediction-policy`, { body }),
    },
  };
}

/** A time of the reader's zone as the API takes it; what is no time is left to the API, which says so. @param {string} [text] */
function utc(text = "") {
  const moment = new Date(text);
  return Number.isNaN(moment.getTime()) ? text : moment.toISOString();
}

/** A time as its field takes it, which would complain about any other text. @param {string} [text] */
function local(text = "") {
  const moment = new Date(text);
  if (Number.isNaN(moment.getTime())) return "";
  return new Date(moment.getTime() - 60_000 * moment.getTimezoneOffset()).toISOString().slice(0, 16);
}

/** A text as a value of the type of a prediction. @param {string} text @param {unknown} prediction */
function alike(text, prediction) {
  if (typeof prediction === "number" && text.trim() && Number.isFinite(Number(text))) return Number(text);
  return typeof prediction === "boolean" && ["true", "false"].includes(text) ? text === "true" : text;
}

/** @param {any} row */
function predictionView({ prediction, probabilities }) {
  const share = probabilities?.[String(prediction)];
  return html`${shown(prediction)} ${share !== undefined && html`<span class="quiet">${percent(share)}</span>`}`;
}

/** @param {any} row @param {string | null} refused */
function labelView({ label, request_id: request, row, prediction }, refused) {
  if (label !== null)
    return html`${shown(label)}
    ${badge(label === prediction ? "ok" : "differs", label === prediction ? "right" : "differs")}`;
  const data = { request, row: String(row), prediction: JSON.stringify(prediction) };
  return button({ action: "label", text: "Label…", refused, data });
}

const QUALITY = [
  { name: "Day (UTC)", cell: ({ day }) => day },
  { name: "Version", cell: ({ version }) => version },
  { name: "Rows", isNumber: true, cell: ({ rows }) => number(rows) },
  { name: "Labels", isNumber: true, cell: ({ labels }) => number(labels) },
  {
    name: "Score",
    cell: ({ score, low, high }) =>
      html`${score && html`${score.metric} ${number(score.value)}`}
      ${low !== null && html`<span class="quiet">${number(low)} to ${number(high)}</span>`}`,
  },
  { name: "Verdict", cell: ({ verdict }) => badge(verdict) },
];

const DRIFT = [
  { name: "Column", isHead: true, cell: ({ name }) => name ?? html`<i>the prediction</i>` },
  { name: "Verdict", cell: ({ verdict }) => badge(verdict) },
  { name: "PSI", isNumber: true, cell: ({ psi }) => number(psi) },
  { name: "by chance", isNumber: true, cell: (column) => number(column.psi_by_chance) },
  { name: "p, adjusted", isNumber: true, cell: (column) => number(column.adjusted_p_value) },
  {
    name: "missing",
    isNumber: true,
    cell: ({ missing_now: share }) => (share === null ? "–" : percent(share)),
  },
  { name: "Note", look: "quiet", cell: ({ note }) => note },
];

/** @param {any} report */
function qualityView({ verdict, days, notes }) {
  return html`<p>${badge(verdict)} ${notes.map((note) => html`${note} `)}</p>
    ${days.length ? table("Quality", QUALITY, days, ({ day, version }) => `quality-${day}-${version}`) : empty("No row was answered in the last 7 days.")}`;
}

/** @param {any} report */
function driftView({ verdict, rows, sampled, columns, prediction, notes }) {
  return html`<p>
      ${badge(verdict)} ${number(sampled)} of ${number(rows)} rows of the last 7 days are compared with training.
      ${notes.map((note) => html`${note} `)}
    </p>
    ${table("Drift", DRIFT, [{ ...prediction, name: null }, ...columns], ({ name }) => `drift-${name}`)}`;
}
