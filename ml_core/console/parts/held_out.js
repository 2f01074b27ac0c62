// What a training measured on its held-out rows: confusion, calibration, residuals, intervals, importances.

import { ApiError, ask, at } from "../core/api.js";
import { number, percent, words } from "../core/format.js";
import { html } from "../core/html.js";
import { bars } from "./bars.js";
import { figure, padded, Plane } from "./plot.js";
import { table } from "./table.js";

const MOST_IMPORTANCES = 15;

/** The diagnostics of the run that made a version; null if there are none. @param {string} tenant @param {any} version @param {AbortSignal} signal */
export async function diagnosticsOf(tenant, version, signal) {
  if (!version.lineage.run_id) return null;
  const path = `${at("tenants", tenant, "runs", version.lineage.run_id, "files")}/diagnostics.json`;
  try {
    return await ask("GET", path, { signal });
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null; // the run, or the file, was deleted
    throw error;
  }
}

/** @param {any} diagnostics */
export function heldOutView(diagnostics) {
  const {
    rows,
    confusion,
    calibration = [],
    residuals = [],
    residual_histogram: histogram,
    intervals = [],
  } = diagnostics;
  return html`${confusion && confusionView(confusion)}
    <div class="grid">
      ${calibration.length > 0 && calibrationView(calibration)} ${residuals.length > 0 && residualsView(residuals)}
      ${histogram && histogramView(histogram)} ${intervals.length > 0 && intervalsView(intervals)}
    </div>
    <p class="quiet">Measured on ${number(rows)} held-out rows.</p>`;
}

/** @param {{classes: string[], has_others: boolean, counts: number[][]}} confusion */
function confusionView({ classes, has_others: hasOthers, counts }) {
  const names = hasOthers ? [...classes, "others"] : classes;
  const most = counts.map((row) =>
    Math.max(
      1,
      row.reduce((sum, count) => sum + count, 0),
    ),
  );
  return html`<h3>Confusion</h3>
    <div class="scroll" role="region" tabindex="0" aria-label="Confusion matrix">
      <table class="confusion">
        <thead>
          <tr>
            <th scope="col">true / predicted</th>
            ${names.map((name) => html`<th scope="col" class="number">${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${counts.map(
            (row, truth) =>
              html`<tr data-key="true-${truth}">
                <th scope="row">${names[truth]}</th>
                ${row.map(
                  (count, predicted) =>
                    html`<td
                      class="number heat${Math.round((5 * count) / most[truth])} ${truth === predicted && "right"}"
                    >
                      ${number(count)}
                    </td>`,
                )}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="quiet">
      Held-out rows by their true class and by the predicted one; the shade is the share of the row.
    </p>`;
}

/** @param {{probability: number, share_right: number, rows: number}[]} bins */
function calibrationView(bins) {
  const plane = new Plane({
    x: [0, 1],
    y: [0, 1],
    across: "probability of the predicted class",
    up: "share that is right",
  });
  plane.line([[0, 0], [1, 1]], "ideal"); // prettier-ignore
  plane.line(bins.map((bin) => [bin.probability, bin.share_right]), "joined"); // prettier-ignore
  const most = Math.max(...bins.map((bin) => bin.rows));
  for (const { probability, share_right: right, rows } of bins)
    plane.dot(probability, right, `${percent(right)} of ${number(rows)} rows`, 3 + 5 * Math.sqrt(rows / most));
  return figure(
    "Calibration",
    plane.svg("Calibration curve"),
    "On the dashed line, a probability of 80 % is right in 80 of 100 rows; below it the model is too sure. The larger a dot, the more rows.",
    ["probability", "right", "rows"],
    bins.map((bin) => [percent(bin.probability), percent(bin.share_right), number(bin.rows)]),
  );
}

/** @param {{prediction: number, residual: number, spread: number, rows: number}[]} bins */
function residualsView(bins) {
  const plane = new Plane({
    x: padded(bins.map((bin) => bin.prediction)),
    y: padded([0, ...bins.flatMap(({ residual, spread }) => [residual - spread, residual + spread])]),
    across: "prediction",
    up: "truth minus prediction",
  });
  plane.line([[plane.x[0], 0], [plane.x[1], 0]], "ideal"); // prettier-ignore
  for (const { prediction, residual, spread, rows } of bins)
    plane
      .line(
        [
          [prediction, residual - spread],
          [prediction, residual + spread],
        ],
        "joined",
      ) // prettier-ignore
      .dot(prediction, residual, `${number(residual)} ± ${number(spread)} in ${number(rows)} rows`);
  return figure(
    "Residuals by prediction",
    plane.svg("Residuals by prediction"),
    "The mean residual of rows with similar predictions; the bars are one standard deviation.",
    ["prediction", "mean residual", "std", "rows"],
    bins.map((bin) => [number(bin.prediction), number(bin.residual), number(bin.spread), number(bin.rows)]),
  );
}

/** @param {{edges: number[], counts: number[]}} histogram */
function histogramView({ edges, counts }) {
  const plane = new Plane({
    x: [edges[0], edges[edges.length - 1]],
    y: [0, Math.max(...counts)],
    across: "truth minus prediction",
    up: "rows",
    isCount: true,
  });
  const range = (index) => `${number(edges[index])} to ${number(edges[index + 1])}`;
  counts.forEach((count, index) =>
    plane.bar(edges[index], edges[index + 1], count, `${range(index)}: ${number(count)}`),
  );
  return figure(
    "Distribution of residuals",
    plane.svg("Histogram of residuals"),
    "The outer bars have all beyond.",
    ["residual", "rows"],
    counts.map((count, index) => [range(index), number(count)]),
  );
}

/** @param {{coverage: number, measured: number, half_width: number}[]} intervals */
const intervalsView = (intervals) =>
  html`<div data-key="intervals">
    <h3>Intervals</h3>
    ${table(
      "Intervals",
      [
        { name: "Asked for", isNumber: true, cell: ({ coverage }) => percent(coverage) },
        { name: "Held the truth", isNumber: true, cell: ({ measured }) => percent(measured) },
        { name: "Width", isNumber: true, cell: (each) => `± ${number(each.half_width)}` },
      ],
      intervals,
      ({ coverage }) => `interval-${coverage}`,
    )}
    <p class="quiet">Measured on halves of the held-out rows, whose intervals were made of the other half.</p>
  </div>`;

/** @param {any} diagnostics */
export function importancesView({ importances, importance_metric: metric }) {
  const values = importances.slice(0, MOST_IMPORTANCES).map((each) => [each.column, each.worse_by]);
  return html`<section>
    <h2>Importances</h2>
    <p class="quiet">How much worse ${words(metric)} becomes when a column's values are permuted among the rows.</p>
    ${bars(values, { label: "Importances", isSigned: values.some(([, value]) => value < 0) })}
  </section>`;
}
