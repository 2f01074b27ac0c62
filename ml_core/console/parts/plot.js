// Small charts as SVG: points, lines and bars between two axes. The numbers are beside each as a table.

import { html } from "../core/html.js";
import { valueTicks } from "./ticks.js";

/** @typedef {ReturnType<typeof html>} Html */

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 250, 58, 12, 10, 46];
const TICKS = 5;

/** A plane of two axes, each from its least to its largest value. */
export class Plane {
  /** @param {{x: [number, number], y: [number, number], across: string, up: string, isCount?: boolean}} axes Ranges, labels, and whether `y` counts. */
  constructor({ x, y, across, up, isCount = false }) {
    this.isCount = isCount;
    this.x = x;
    this.y = y;
    this.labels = [across, up];
    /** @type {Html[]} */
    this.marks = [];
  }

  /** @param {number} x @param {number} y @returns {[string, string]} */
  at(x, y) {
    const share = (value, [low, high]) => (value - low) / (high - low || 1);
    const across = LEFT + share(x, this.x) * (WIDTH - LEFT - RIGHT);
    return [across.toFixed(1), (HEIGHT - BOTTOM - share(y, this.y) * (HEIGHT - TOP - BOTTOM)).toFixed(1)];
  }

  /** @param {[number, number][]} points @param {string} style */
  line(points, style) {
    this.marks.push(
      html`<polyline class="${style}" points="${points.map((each) => this.at(...each)).join(" ")}"></polyline>`,
    );
    return this;
  }

  /** @param {number} x @param {number} y @param {string} title Shown on hover. @param {number} [radius] */
  dot(x, y, title, radius = 4) {
    const [across, down] = this.at(x, y);
    this.marks.push(
      html`<circle cx="${across}" cy="${down}" r="${radius.toFixed(1)}"><title>${title}</title></circle>`,
    );
    return this;
  }

  /** @param {number} from @param {number} to @param {number} y @param {string} title */
  bar(from, to, y, title) {
    const [[left, top], [right, bottom]] = [this.at(from, y), this.at(to, this.y[0])];
    const size = (a, b) => Math.max(0.5, Number(b) - Number(a)).toFixed(1);
    this.marks.push(
      html`<rect x="${left}" y="${top}" width="${size(left, right)}" height="${size(top, bottom)}"
        ><title>${title}</title></rect
      >`,
    );
    return this;
  }

  /** @param {string} label What it shows, for those who do not see it. */
  svg(label) {
    const [across, up] = this.labels;
    return html`<svg class="drawing" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}">
      ${ticksWithin(this.x).map(({ value, text }) => {
        const [x, y] = this.at(value, this.y[0]);
        return html`<text class="below" x="${x}" y="${Number(y) + 16}">${text}</text>`;
      })}
      ${ticksWithin(this.y, this.isCount).map(({ value, text }) => {
        const [x, y] = this.at(this.x[0], value);
        return html`<line class="rule" x1="${x}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"></line>
          <text class="beside" x="${Number(x) - 6}" y="${Number(y) + 4}">${text}</text>`;
      })}
      ${this.marks}
      <text class="below" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}">${across}</text>
      <text class="below" transform="translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">${up}</text>
    </svg>`;
  }
}

/** The labels within a range, which does not end at one. @param {[number, number]} range @param {boolean} [areWhole] */
const ticksWithin = ([low, high], areWhole = false) =>
  valueTicks([low, high], TICKS, areWhole ? 1 : 0).ticks.filter(
    ({ value }) => Math.abs(value - (low + high) / 2) <= 0.501 * (high - low),
  );

/** A range with some air; of equal values, one around them. @param {number[]} values @returns {[number, number]} */
export function padded(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const air = (high - low) / 20 || Math.abs(low) / 10 || 1;
  return [low - air, high + air];
}

/**
 * A chart with its heading, what it says, and its numbers.
 *
 * @param {string} title @param {Html} chart @param {unknown} remark @param {string[]} heads @param {unknown[][]} rows
 */
export const figure = (title, chart, remark, heads, rows) =>
  html`<figure class="figure" data-key="figure-${title}">
    <h3>${title}</h3>
    ${chart}
    <figcaption class="quiet">${remark}</figcaption>
    <details>
      <summary>The numbers</summary>
      <table aria-label="${title}">
        <thead>
          <tr>
            ${heads.map((head) => html`<th scope="col" class="number">${head}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (row, index) =>
              html`<tr data-key="row-${index}">
                ${row.map((cell) => html`<td class="number">${cell}</td>`)}
              </tr>`,
          )}
        </tbody>
      </table>
    </details>
  </figure>`;
