// The points of metrics of runs as lines of charts; of a run that goes on, only what is new is asked for.

import { ask } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import "./line_chart.js";
import { empty } from "./states.js";

/** @typedef {import("./line_chart.js").Point} Point */
/** @typedef {{points: number, last_step: number}} Summary How many points a metric has, as the API says. */

const MOST_POINTS = 2000; // more than a chart has pixel columns
const MOST_KEPT = 500;

/** @type {Map<string, {total: number, lastStep: number, points: Point[]}>} */
const kept = new Map();

/**
 * The points of a metric; of very many a selection with all extremes.
 *
 * @param {string} run The path of the run.
 * @param {string} metric
 * @param {Summary} summary
 * @param {AbortSignal} signal
 * @returns {Promise<Point[]>}
 */
export async function curve(run, metric, summary, signal) {
  const key = `${run} ${metric}`;
  const known = kept.get(key);
  if (known?.total === summary.points && known.lastStep === summary.last_step) return known.points;
  const read = async (after) => {
    const query = { metric, max_points: MOST_POINTS, after_step: after };
    const { total, steps, values } = await ask("GET", `${run}/series`, { query, signal });
    return { total, points: steps.map((step, index) => [step, values[index]]) };
  };
  let { total, points } = await read(known?.lastStep);
  if (known && known.total + total >= summary.points) {
    total += known.total;
    points = [...known.points, ...points];
  } else if (known) ({ total, points } = await read(undefined)); // an earlier point was added meanwhile
  if (kept.size >= MOST_KEPT) kept.clear();
  kept.set(key, { total, lastStep: points.at(-1)?.[0] ?? summary.last_step, points });
  return points;
}

/** Whether a metric has more than one value. @param {Summary} summary */
export const isCurve = ({ points }) => points > 1;

/** @typedef {{label: string, series: import("./line_chart.js").Series[]}} Chart */

/** Places for charts, which `drawCharts` fills. @param {Chart[]} charts @param {number} all How many there are. @param {string} none */
export const chartsView = (charts, all, none) =>
  html`${charts.length ? html`<div class="grid wide">${charts.map(({ label }) => html`<line-chart data-key="chart-${label}" label="${label}"></line-chart>`)}</div>` : empty(none)}
  ${all > charts.length && html`<p class="quiet">${charts.length} of ${counted(all, "chart")}. Search metrics for others.</p>`}`;

/** @param {HTMLElement} main @param {Chart[]} charts */
export const drawCharts = (main, charts) =>
  main.querySelectorAll("line-chart").forEach((chart, index) => Object.assign(chart, { series: charts[index].series }));
