// What the values of a column look like, of one table or of two: a small histogram and numbers, or the frequent values.

import { moment, number, percent } from "../core/format.js";
import { html } from "../core/html.js";

const SHOWN_VALUES = 5;
const [WIDTH, HEIGHT] = [100, 30];

/** @typedef {{kind: string | null, count: number, values: [string, number][], other: number, minimum: number | null,
 *   maximum: number | null, mean: number | null, edges: number[], bin_counts: number[]}} Column */

/** @param {Column} column */
export function valuesView(column) {
  const { kind, values, other, minimum } = column;
  if (minimum !== null) {
    return html`${column.edges.length > 2 && histogram([column])}
      <span class="quiet">${rangeText(kind, column)}</span>`;
  }
  const most = values.slice(0, SHOWN_VALUES);
  const rest = values.length - most.length + (other > 0 ? 1 : 0);
  return html`${most.map(([value, rows]) => html`${value} <span class="quiet">${number(rows)}</span> `)}${rest > 0 && "…"}`;
}

/** How the values of a column changed: the first table as a line, the second as bars; or the shares that changed most. @param {Column} before @param {Column} now */
export function changeView(before, now) {
  if (before.minimum !== null && now.minimum !== null) {
    const text = [before, now].map((each) => rangeText(each.kind, each));
    return html`${Math.max(before.edges.length, now.edges.length) > 2 && histogram([before, now])}
      <span class="quiet">${text[0] === text[1] ? text[0] : `${text[0]}; now ${text[1]}`}</span>`;
  }
  const share = ({ values, count }, value) => (values.find(([name]) => name === value)?.[1] ?? 0) / Math.max(1, count);
  const names = [...new Set([...before.values, ...now.values].map(([value]) => value))];
  const changes = names.map((value) => ({ value, from: share(before, value), to: share(now, value) }));
  const most = changes.sort((a, b) => Math.abs(b.to - b.from) - Math.abs(a.to - a.from)).slice(0, SHOWN_VALUES);
  return html`${most.map(({ value, from, to }) => html`${value} <span class="quiet">${percent(from)} → ${percent(to)}</span> `)}`;
}

/** @param {string | null} kind @param {any} column */
function rangeText(kind, { minimum, maximum, mean }) {
  if (kind === "datetime") return `${moment(minimum)} to ${moment(maximum)} UTC`;
  return `${number(minimum)} to ${number(maximum)}${kind === "text" ? " characters" : ""}, mean ${number(mean)}`;
}

/** The density of values: the edges are quantiles, so narrow bins are dense. @param {Column[]} columns The last one as bars, one before it as a line. */
function histogram(columns) {
  const low = Math.min(...columns.map(({ edges }) => edges[0]));
  const range = Math.max(...columns.map(({ edges }) => edges[edges.length - 1])) - low || 1;
  const drawn = columns.map(({ edges, bin_counts: counts, count }) =>
    counts.map((rows, index) => ({
      start: (WIDTH * (edges[index] - low)) / range,
      end: (WIDTH * (edges[index + 1] - low)) / range,
      density: rows / Math.max(1, count) / Math.max((edges[index + 1] - edges[index]) / range, 0.001),
    })),
  );
  const most = Math.max(...drawn.flat().map(({ density }) => density), Number.MIN_VALUE);
  const top = (density) => (HEIGHT - (HEIGHT * density) / most).toFixed(2);
  const bars = drawn[drawn.length - 1].map(
    ({ start, end, density }) =>
      html`<rect
        x="${start.toFixed(2)}"
        width="${Math.max(end - start, 0.5).toFixed(2)}"
        y="${top(density)}"
        height="${((HEIGHT * density) / most).toFixed(2)}"
      ></rect>`,
  );
  const line =
    drawn.length > 1 &&
    drawn[0].map(
      ({ start, end, density }) => `L ${start.toFixed(2)} ${top(density)} L ${end.toFixed(2)} ${top(density)}`,
    );
  return html`<svg class="histogram" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">
    ${bars}${line && line.length > 0 && html`<path d="M ${drawn[0][0].start.toFixed(2)} ${HEIGHT} ${line.join(" ")} L ${drawn[0][drawn[0].length - 1].end.toFixed(2)} ${HEIGHT}"></path>`}
  </svg>`;
}
