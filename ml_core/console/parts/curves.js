// The points of metrics of runs as lines for a chart; of a run that goes on, only what is new is asked for.

import { ask } from "../core/api.js";

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
