// The points of metrics of runs as lines of charts; of a run that goes on, only what is new is asked for.

import { ask } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { turn } from "../core/router.js";
import "./line_chart.js";
import { empty } from "./states.js";

/** @typedef {import("./line_chart.js").Point} Point */
/** @typedef {import("./line_chart.js").Range} Range */
/** @typedef {{points: number, last_step: number}} Summary How many points a metric has, as the API says. */

const MOST_POINTS = 2000; // more than a chart has pixel columns
const MOST_KEPT = 500;

/** @typedef {{total: number, lastStep: number, points: Point[]}} Read Points as they were when the metric had so many. */
/** @type {Map<string, Read>} */
const kept = new Map();

/**
 * The points of a metric; of very many a selection with all extremes, which is finer within a range.
 *
 * @param {string} run The path of the run.
 * @param {string} metric
 * @param {Summary} summary
 * @param {Range | null} range Of steps.
 * @param {AbortSignal} signal
 * @returns {Promise<Point[]>}
 */
export async function curve(run, metric, summary, range, signal) {
  const read = async (bounds) => {
    const query = { metric, max_points: MOST_POINTS, ...bounds };
    const { total, steps, values } = await ask("GET", `${run}/series`, { query, signal });
    return { total, points: steps.map((step, index) => [step, values[index]]) };
  };
  const { total, points } = await once(`${run} ${metric}`, summary, async (known) => {
    const added = await read({ after_step: known?.lastStep });
    if (!known) return added;
    const sum = known.total + added.total;
    if (sum < summary.points) return read({}); // an earlier point was added meanwhile
    return { total: sum, points: [...known.points, ...added.points] };
  });
  if (!range || points.length === total) return points;
  const [from, to] = range;
  const within = await once(`${run} ${metric} ${range}`, summary, async () => {
    const { points: finer } = await read({ after_step: from - 1, until_step: to });
    return { total: summary.points, points: finer };
  });
  return [...points.filter(([step]) => step < from), ...within.points, ...points.filter(([step]) => step > to)];
}

/**
 * What was read while the metric was as it is now, or is read.
 *
 * @param {string} key @param {Summary} summary
 * @param {(known?: Read) => Promise<Omit<Read, "lastStep">>} read Gets what was read before.
 */
async function once(key, { points: total, last_step: lastStep }, read) {
  const known = kept.get(key);
  if (known?.total === total && known.lastStep === lastStep) return known;
  const found = await read(known);
  if (kept.size >= MOST_KEPT) kept.clear();
  const made = { ...found, lastStep: Math.max(lastStep, found.points.at(-1)?.[0] ?? lastStep) };
  kept.set(key, made);
  return made;
}

/** Whether a metric has more than one value. @param {Summary} summary */
export const isCurve = ({ points }) => points > 1;

/** @typedef {{label: string, series: import("./line_chart.js").Series[]}} Chart */

/** The steps that an address chooses; null: all, also where somebody typed no range. @param {Record<string, string>} query @returns {Range | null} */
export function rangeOf({ steps = "" }) {
  const [from, to] = steps.split(",").map(Number);
  return Number.isSafeInteger(from) && Number.isSafeInteger(to) && from < to ? [from, to] : null;
}

/** Places for charts, which `drawCharts` fills. @param {Chart[]} charts @param {number} all How many there are. @param {string} none */
export const chartsView = (charts, all, none) =>
  html`${
    charts.length
      ? html`<div class="grid wide">
            ${charts.map(({ label }) => html`<line-chart data-key="chart-${label}" label="${label}"></line-chart>`)}
          </div>
          <p class="quiet">
            Drag across a chart to see some of its steps; or move with Shift and the arrow keys, and press Enter.
          </p>`
      : empty(none)
  }
  ${all > charts.length && html`<p class="quiet">${charts.length} of ${counted(all, "chart")}. Search metrics for others.</p>`}`;

/** @param {HTMLElement} main @param {Chart[]} charts @param {Record<string, string>} query */
export function drawCharts(main, charts, query) {
  const chosen = (/** @type {Range | null} */ range) => turn({ steps: range?.join() });
  main.querySelectorAll("line-chart").forEach((chart, index) => {
    Object.assign(chart, { range: rangeOf(query), chosen, series: charts[index].series });
  });
}
