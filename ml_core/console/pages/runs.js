// The runs of a tenant: search them, choose several to compare, and see which parameters lead to which values of a metric.

import { ask, at, every } from "../core/api.js";
import { counted, duration, number, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link, turn } from "../core/router.js";
import { listed, showList } from "../parts/data_table.js";
import { field, fieldsOf } from "../parts/fields.js";
import { byName, parametersOf } from "../parts/parameters.js";
import { keptOf } from "../parts/parallel_coordinates.js";
import { badge, button, empty } from "../parts/states.js";

const STATES = ["running", "finished", "failed", "cancelled", "dead"];
const FIELDS = ["model", "status", "parent", "parameter", "metric", "sort"];
const MOST_RUNS = 500; // in the picture
const MOST_AXES = 9;
const MOST_CATEGORIES = 20; // a column of more texts tells runs apart, and has no effect
const SHOWN = 3; // parameters and metrics of a row

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Runs of ${tenant}`,

  async load({ params: { tenant }, query, signal }) {
    if (query.view !== "parameters") return null;
    const runs = await every(`${at("tenants", tenant)}/runs`, { query: filters(query), signal }, MOST_RUNS);
    const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort(byImportance);
    const metric = metrics.includes(query.by) ? query.by : (metrics.find((name) => name === query.sort) ?? metrics[0]);
    const measured = runs.filter((run) => metric in run.metrics);
    const { axes, rows, left } = axesOf(measured, metric);
    return { runs: measured, metric, metrics, plot: { axes, rows, ranges: rangesOf(query) }, left };
  },

  view(data, { params: { tenant }, query }) {
    const view = (name, text) =>
      html`<a
        href="${link(["t", tenant, "runs"], { ...query, view: name })}"
        ${(query.view ?? "") === name && html`aria-current="true"`}
        >${text}</a
      >`;
    const asked = (name, label, example = "") => field(name, label, query[name], html`placeholder="${example}"`);
    return html`<h1 tabindex="-1">Runs</h1>
      <form class="line" data-action="search" role="search">
        ${asked("model", "Model")}
        <label class="field"
          ><span>Status</span>
          <select name="status">
            ${["", ...STATES].map((state) => html`<option value="${state}" ${state === (query.status ?? "") && html`selected`}>${state || "any"}</option>`)}
          </select></label
        >
        ${asked("parent", "Part of run")} ${asked("parameter", "Parameters", "C=0.5 and solver=lbfgs")}
        ${asked("metric", "Metrics", "validation/accuracy>=0.8")} ${asked("sort", "Sort by metric", "newest first")}
        <button type="submit">Search</button>
      </form>
      <nav class="filter" aria-label="View">${view("", "List")} ${view("parameters", "Parameters and a metric")}</nav>
      ${data && parametersView(data)}
      <form data-action="compare">
        <data-table></data-table>
        <div class="buttons"><button type="submit">Compare the chosen runs</button></div>
      </form>`;
  },

  connect(main, data, { params: { tenant }, query, signal }) {
    const isFiltered = FIELDS.some((name) => query[name]);
    const { metric = [], sort } = filters(query);
    const asked = [sort, ...metric.map((bound) => bound.split(/[<>]/)[0].trim())];
    if (!data) {
      const path = `${at("tenants", tenant)}/runs`;
      const list = table(tenant, asked, isFiltered, ({ limit, cursor }) =>
        ask("GET", path, { query: { ...filters(query), limit, cursor }, signal }),
      );
      return showList(main, list);
    }
    const show = () => {
      const kept = keptOf(data.plot);
      const items = data.runs.filter((run) => kept.has(run.run_id));
      const count = main.querySelector("#kept");
      if (count) count.textContent = keptText(data);
      showList(main, table(tenant, [data.metric], true, listed(items, (run) => run.run_id)));
    };
    const chosen = (ranges) => {
      data.plot.ranges = ranges;
      filter({ ranges: Object.keys(ranges).length ? JSON.stringify(ranges) : undefined });
      show();
    };
    Object.assign(main.querySelector("parallel-coordinates") ?? {}, { plot: { ...data.plot, chosen } });
    show();
  },

  actions: {
    search: (element) => turn({ ...fieldsOf(element), ranges: undefined }),
    by: (element) => turn({ ...fieldsOf(element), ranges: undefined }),
    clear: () => turn({ ranges: undefined }),

    compare(element, _, { params: { tenant } }) {
      const chosen = new FormData(/** @type {HTMLFormElement} */ (element)).getAll("run");
      if (chosen.length < 2) throw new Error("Choose two runs or more to compare them.");
      location.hash = link(["t", tenant, "run-comparison"], { runs: chosen.join(",") });
    },
  },
};

/** The filters of the address as the API takes them. @param {Record<string, string>} query */
function filters({ model, status, parent, parameter, metric, sort }) {
  // "and" within quotes is a part of a value.
  const parts = (text) => text?.split(/\s+and\s+(?=(?:[^"]*"[^"]*")*[^"]*$)/);
  const parameters = parts(parameter)?.map(asJson);
  return { model, status, parent_run_id: parent, parameter: parameters, metric: parts(metric), sort };
}

/** `solver=lbfgs` as the API takes it: `solver="lbfgs"`. @param {string} text */
function asJson(text) {
  const [name, value] = text.split(/=(.*)/s);
  try {
    JSON.parse(value);
    return text;
  } catch {
    return value ? `${name}=${JSON.stringify(value)}` : text; // which the API refuses, with what to write
  }
}

/**
 * @param {string} tenant
 * @param {(string | undefined)[]} asked The metrics that are shown first.
 * @param {boolean} isFiltered
 * @param {import("../parts/data_table.js").Source["load"]} load
 * @returns {import("../parts/data_table.js").Source}
 */
function table(tenant, asked, isFiltered, load) {
  return {
    label: "Runs",
    key: (run) => run.run_id,
    load,
    none: isFiltered
      ? "No run matches."
      : html`There is no run. Each training is one:
          <code>mlcore jobs submit train --tenant ${tenant} --model NAME --dataset DATASET --target COLUMN</code>`,
    columns: [
      {
        name: "Compare",
        cell: ({ run_id: id }) =>
          html`<input type="checkbox" class="choose" name="run" value="${id}" aria-label="Compare ${id}" />`,
      },
      { name: "Run", cell: ({ run_id: id }) => html`<a href="${link(["t", tenant, "runs", id])}">${id}</a>` },
      { name: "Status", cell: (run) => badge(run.status) },
      { name: "Model", cell: (run) => html`${run.model_id} <span class="quiet">${run.kind}</span>` },
      { name: "Metrics", cell: (run) => some(metricsOf(run, asked), number) },
      { name: "Parameters", cell: (run) => some(toldOf(run), shown) },
      { name: "Started", cell: (run) => html`<when-time datetime="${run.started_at}"></when-time>` },
      { name: "Took", isNumber: true, cell: tookText },
    ],
  };
}

/** @param {any} run */
const tookText = ({ started_at: start, finished_at: end }) =>
  end ? duration((Date.parse(end) - Date.parse(start)) / 1000) : "–";

/** The parameters that tell something, each name once. @param {any} run @returns {[string, unknown][]} */
function toldOf(run) {
  const told = parametersOf(run).filter(([, value]) => value !== null && shown(value) !== "{}");
  const names = told.map(([name]) => name.split(".").at(-1));
  return told.filter((_, index) => names.indexOf(names[index]) === index);
}

/** The first of them. @param {[string, any][]} pairs @param {(value: any) => string} text */
const some = (pairs, text) =>
  html`${pairs.slice(0, SHOWN).map(([name, value]) => html`<span class="quiet">${name.split(".").at(-1)}</span> ${text(value)} `)}${pairs.length > SHOWN && "…"}`;

/** Last values, those that are asked for first. @param {any} run @param {(string | undefined)[]} asked @returns {[string, number][]} */
function metricsOf({ metrics }, asked) {
  const order = Object.keys(metrics).sort(byImportance);
  const names = [...asked.filter((name) => name && name in metrics), ...order.filter((name) => !asked.includes(name))];
  return names.map((name) => [/** @type {string} */ (name), metrics[/** @type {string} */ (name)].last_value]);
}

/** What was measured on held-out rows comes first. @param {string} one @param {string} other */
function byImportance(one, other) {
  const rank = (name) => ["validation/", "cv/"].findIndex((start) => name.startsWith(start)) >>> 0;
  return rank(one) - rank(other) || (one < other ? -1 : 1);
}

/**
 * The parameters that differ between runs, and the metric, as axes.
 *
 * @param {any[]} runs @param {string} metric
 */
function axesOf(runs, metric) {
  const parameters = runs.map((run) => new Map(parametersOf(run).map(([name, value]) => [name, valueOf(value)])));
  const names = [...new Set(parameters.flatMap((of) => [...of.keys()]))].sort(byName).filter((name) => {
    const values = parameters.map((of) => of.get(name) ?? null);
    const known = new Set(values.filter((value) => value !== null));
    const isText = [...known].some((value) => typeof value === "string");
    return known.size && new Set(values).size > 1 && !(isText && known.size > MOST_CATEGORIES);
  });
  const most = names.slice(0, MOST_AXES);
  const rows = runs.map((run, index) => ({
    key: run.run_id,
    values: [...most.map((name) => parameters[index].get(name) ?? null), run.metrics[metric].last_value],
  }));
  return { axes: [...most, metric], rows, left: names.length - most.length };
}

/** A parameter as a number or a text. @param {unknown} value */
const valueOf = (value) => (typeof value === "number" || value === null ? value : shown(value));

/** The ranges in the address. @param {Record<string, string>} query @returns {Record<string, [any, any]>} */
function rangesOf({ ranges = "{}" }) {
  try {
    const found = Object.entries(JSON.parse(ranges)).filter(([, range]) => Array.isArray(range) && range.length === 2);
    return Object.fromEntries(/** @type {any} */ (found));
  } catch {
    return {}; // somebody typed it
  }
}

/** @param {any} data */
const keptText = ({ runs, plot }) =>
  `${number(keptOf(plot).size)} of ${counted(runs.length, "run")} within the chosen ranges.`;

/** @param {any} data */
function parametersView(data) {
  const { runs, metric, metrics, plot, left } = data;
  if (!metric) return empty("No run that matches has a metric.");
  return html`<section>
    <form class="line" data-action="by">
      <label class="field"
        ><span>Metric</span>
        <select name="by">
          ${metrics.map((name) => html`<option value="${name}" ${name === metric && html`selected`}>${name}</option>`)}
        </select></label
      ><button type="submit">Show</button>
    </form>
    ${
      plot.axes.length > 1
        ? html`<parallel-coordinates label="Parameters and ${metric}"></parallel-coordinates>`
        : empty("The parameters of these runs do not differ.")
    }
    <p class="quiet">
      <span id="kept" role="status">${keptText(data)}</span>
      ${runs.length >= MOST_RUNS && `They are the first ${number(MOST_RUNS)} that match.`}
      ${left > 0 && `${counted(left, "parameter")} more differ, and have no axis.`} Drag along an axis to choose a
      range; the arrow keys move its ends.
    </p>
    <div class="buttons">${button({ action: "clear", text: "All ranges" })}</div>
  </section>`;
}
