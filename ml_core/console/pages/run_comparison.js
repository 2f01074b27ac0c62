// Runs side by side: their curves over each other, metrics with the best, and parameters with those that differ marked.

import { ApiError, ask, at } from "../core/api.js";
import { number, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { link, turn } from "../core/router.js";
import { chartsView, curve, drawCharts, isCurve, rangeOf } from "../parts/curves.js";
import { matches } from "../parts/data_table.js";
import { field, fieldsOf } from "../parts/fields.js";
import { swatch } from "../parts/line_chart.js";
import { badge, problem, refusal } from "../parts/states.js";
import { table } from "../parts/table.js";

const MOST_CHARTS = 12;
const MOST_LINES = 60; // each is a question

/** @type {import("../main.js").Page} */
export default {
  title: () => "Runs side by side",
  everyS: ({ compared }) => (compared?.runs.some(({ status }) => status === "running") ? 3 : undefined),

  async load({ params: { tenant }, query, signal }) {
    const wanted = [...new Set((query.runs ?? "").split(",").filter(Boolean))];
    const asked = ask("GET", `${at("tenants", tenant)}/run-comparison`, { query: { run: wanted }, signal });
    const compared = await asked.catch((error) => {
      if (error instanceof ApiError && error.status === 404) throw error;
      return refusal(error);
    });
    if (compared instanceof ApiError) return { wanted, refused: compared, charts: [] };
    const curves = Object.entries(compared.metrics).filter(
      ([name, { runs }]) => matches(name, query.q) && Object.values(runs).some(isCurve),
    );
    const drawn = curves
      .slice(0, Math.min(MOST_CHARTS, Math.ceil(MOST_LINES / wanted.length)))
      .map(async ([label, { runs }]) => ({
        label,
        series: await Promise.all(
          wanted.map(async (name) => {
            const path = at("tenants", tenant, "runs", name);
            return { name, points: runs[name] ? await curve(path, label, runs[name], rangeOf(query), signal) : [] };
          }),
        ),
      }));
    return { wanted, compared, charts: await Promise.all(drawn), all: curves.length };
  },

  view({ compared, refused, charts, all }, { params: { tenant }, query }) {
    return html`<p class="quiet"><a href="${link(["t", tenant, "runs"])}">Runs</a></p>
      <h1 tabindex="-1">Runs side by side</h1>
      <form class="line" data-action="add">
        ${field("run", "Another run", "", html`required pattern="run_[0-9a-f]{16}" placeholder="run_0123456789abcdef"`)}
        <button type="submit">Add</button>
      </form>
      ${
        compared
          ? html`<section>
                <h2>Curves</h2>
                <form class="line" data-action="search" role="search">
                  ${field("q", "Metrics with", query.q, html`type="search"`)}
                  <button type="submit">Search</button>
                </form>
                ${chartsView(charts, all, "No such metric has more than one value in any of them.")}
              </section>
              <section>
                <h2>Values</h2>
                ${valuesView(compared, tenant, query)}
              </section>`
          : problem(refused)
      }`;
  },

  connect: (main, { charts }, { query }) => drawCharts(main, charts, query),

  actions: {
    add: (element, { wanted }) => turn({ runs: [...wanted, fieldsOf(element).run].join(",") }),
    search: (element) => turn({ q: fieldsOf(element).q.trim() }),
  },
};

/** @param {any} compared @param {string} tenant @param {Record<string, string>} query */
function valuesView({ runs, metrics, parameters, same_parameters: same, tags }, tenant, query) {
  const names = runs.map((run) => run.run_id);
  const without = (id) => names.filter((other) => other !== id).join(",");
  const differing = (part, values) =>
    Object.entries(values).map(([name, of]) => ({
      part,
      name,
      mark: badge("differs"),
      cell: (run) => (run in of ? shown(of[run]) : "–"),
    }));
  const rows = [
    ...Object.entries(metrics).map(([name, { runs: of, best_last_run: best }]) => ({
      part: "metric",
      name,
      cell: (run) => html`${number(of[run]?.last)} ${run === best && badge("best")}`,
    })),
    ...differing("parameter", parameters),
    ...differing("tag", tags),
    ...Object.entries(same).map(([name, value]) => ({ part: "parameter", name, cell: () => shown(value) })),
  ];
  const head = ({ run_id: id, model_id: model, kind, status }, index) =>
    html`${swatch(index)} <a href="${link(["t", tenant, "runs", id])}">${id}</a><br />${kind} ${model} ${badge(status)}<br />
      ${names.length > 2 && html`<a href="${link(["t", tenant, "run-comparison"], { ...query, runs: without(id) })}" aria-label="Leave out ${id}">Leave out</a>`}`;
  const columns = [
    { name: "Value", isHead: true, cell: ({ name, part, mark }) => html`${name} <span class="quiet">${part}</span> ${mark}` },
    ...runs.map((run, index) => ({ name: head(run, index), look: "value", cell: (row) => row.cell(run.run_id) })),
  ];
  return table("Runs side by side", columns, rows, ({ part, name }) => `${part}/${name}`);
}
