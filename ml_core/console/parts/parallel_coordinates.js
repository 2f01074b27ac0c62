// <parallel-coordinates label="…">: each row is a line across all axes, coloured by the last one. Rows are chosen by a range of an
// axis: drag along it, or move its two ends with the arrow keys. The page lists what is chosen, which is the same as text.

import { number } from "../core/format.js";
import { html, render } from "../core/html.js";
import { valueTicks } from "./ticks.js";

/** @typedef {number | string | null} Value */
/** @typedef {Record<string, [Value, Value]>} Ranges Axis → its lowest and its highest value that are chosen. */
/**
 * @typedef {object} Plot
 * @property {string[]} axes Their names.
 * @property {{key: string, values: Value[]}[]} rows A value for each axis; null where a row has none.
 * @property {Ranges} ranges
 * @property {(ranges: Ranges) => void} chosen Called when somebody has chosen another range.
 */
/**
 * An axis. Places are from 0, at the bottom, to 1.
 *
 * @typedef {object} Axis
 * @property {string} name
 * @property {(value: Value) => number | null} place
 * @property {(place: number) => Value} valueAt
 * @property {{value: Value, text: string}[]} ticks
 * @property {number} step How far an arrow key goes.
 */

const HEIGHT = 320;
const [TOP, BOTTOM, LEFT, RIGHT] = [34, HEIGHT - 14, 96, 64];
const [MIN_DISTANCE, TICK_DISTANCE] = [120, 44];
const LOG_FROM = 100; // times that the highest value is the lowest
const SHADES = 5;
const NEAR = 8 / (BOTTOM - TOP); // an end that is so near is moved
const [MOST_TICKS, MOST_CHARACTERS] = [12, 17];
const ALMOST = 1e-9;

class ParallelCoordinates extends HTMLElement {
  /** @type {Plot | undefined} */
  #plot;
  /** @type {Axis[]} */
  #axes = [];
  /** @type {{axis: Axis, anchor: number, moved: boolean} | null} */
  #drag = null;
  #width = 0;
  #resized = new ResizeObserver(() => requestAnimationFrame(() => this.clientWidth !== this.#width && this.#show()));

  constructor() {
    super();
    this.addEventListener("pointerdown", (event) => this.#begin(event));
    this.addEventListener("pointermove", (event) => this.#go(event));
    this.addEventListener("pointerup", () => this.#end());
    this.addEventListener("pointercancel", () => this.#end());
    this.addEventListener("keydown", (event) => this.#pressed(event));
  }

  connectedCallback() {
    this.#resized.observe(this);
    this.#show();
  }

  disconnectedCallback() {
    this.#resized.disconnect();
  }

  /** @param {Plot} plot */
  set plot(plot) {
    if (this.#drag) return; // what is being dragged stays
    this.#plot = plot;
    this.#axes = axesOf(plot);
    this.#show();
  }

  #show() {
    this.#width = this.clientWidth; // 0: it can't be seen
    if (!this.#plot || !this.#width) return;
    const count = this.#axes.length;
    const width = Math.max(this.#width, LEFT + RIGHT + MIN_DISTANCE * (count - 1));
    const at = (index) => LEFT + ((width - LEFT - RIGHT) * index) / Math.max(1, count - 1);
    const kept = within(this.#plot, this.#axes);
    const rows = this.#plot.rows.toSorted((one, other) => Number(kept.has(one.key)) - Number(kept.has(other.key)));
    const label = this.getAttribute("label");
    render(
      this,
      html`<div class="scroll" role="region" tabindex="0" aria-label="${label}">
        <svg viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" role="group" aria-label="${label}">
          <g aria-hidden="true">
            ${rows.map(
              ({ key, values }) =>
                html`<path
                  data-key="${key}"
                  class="row ${kept.has(key) ? this.#shade(values) : "out"}"
                  d="${this.#line(values, at)}"
                  ><title>${key}</title></path
                >`,
            )}
          </g>
          ${this.#axes.map((axis, index) => this.#axisView(axis, index, at(index)))}
        </svg>
      </div>`,
    );
  }

  /** @param {Value[]} values @param {(index: number) => number} at */
  #line(values, at) {
    let isDown = false;
    return values
      .map((value, index) => {
        const place = this.#axes[index].place(value);
        const wasDown = isDown;
        isDown = place !== null;
        return place === null ? "" : `${wasDown ? "L" : "M"}${at(index).toFixed(1)} ${y(place)}${wasDown ? "" : "h0"}`;
      })
      .join("");
  }

  /** @param {Value[]} values */
  #shade(values) {
    const place = this.#axes[this.#axes.length - 1].place(values[values.length - 1]);
    return place === null ? "none" : `shade${Math.min(SHADES - 1, Math.floor(SHADES * place))}`;
  }

  /** @param {Axis} axis @param {number} index @param {number} x */
  #axisView(axis, index, x) {
    const [low, high] = rangeOf(axis, /** @type {Plot} */ (this.#plot).ranges);
    const isChosen = low > 0 || high < 1;
    const ends = /** @type {[string, number, number, number][]} */ ([
      ["least", low, 0, high],
      ["most", high, low, 1],
    ]);
    return html`<g data-key="axis-${axis.name}" class="axis ${isChosen && "chosen"}">
      <line x1="${x}" x2="${x}" y1="${TOP}" y2="${BOTTOM}"></line>
      <g aria-hidden="true">
        <text class="middle name" x="${x}" y="16"
          >${ending(axis.name.split(".").at(-1) ?? "")}<title>${axis.name}</title></text
        >
        ${axis.ticks.map(({ value, text }) => html`<text class="end" x="${x - 8}" y="${Number(y(axis.place(value) ?? 0)) + 4}">${beginning(text)}<title>${text}</title></text>`)}
      </g>
      <rect
        class="range"
        visibility="${isChosen ? "visible" : "hidden"}"
        x="${x - 6}"
        y="${Number(y(high)) - 4}"
        width="12"
        height="${Number(y(low)) - Number(y(high)) + 8}"
      ></rect>
      <rect
        class="touch"
        data-axis="${index}"
        x="${x - 16}"
        y="${TOP - 8}"
        width="32"
        height="${BOTTOM - TOP + 16}"
      ></rect>
      ${ends.map(
        ([end, place, least, most]) =>
          html`<rect
            class="end"
            data-axis="${index}"
            data-end="${end}"
            role="slider"
            tabindex="0"
            aria-orientation="vertical"
            aria-label="${axis.name}: at ${end}"
            aria-valuemin="${Math.round(100 * least)}"
            aria-valuemax="${Math.round(100 * most)}"
            aria-valuenow="${Math.round(100 * place)}"
            aria-valuetext="${textOf(axis.valueAt(place))}"
            x="${x - 8}"
            y="${Number(y(place)) + (end === "most" ? -6 : 1)}"
            width="16"
            height="5"
            rx="2"
          ></rect>`,
      )}
    </g>`;
  }

  /** @param {Axis} axis @param {number} low @param {number} high */
  #choose(axis, low, high) {
    const plot = /** @type {Plot} */ (this.#plot);
    const { [axis.name]: _, ...others } = plot.ranges;
    const isAll = low <= 0 && high >= 1;
    plot.ranges = isAll ? others : { ...others, [axis.name]: [axis.valueAt(low), axis.valueAt(high)] };
    this.#show();
  }

  /** @param {PointerEvent} event */
  #begin(event) {
    const element = /** @type {SVGElement | null} */ (/** @type {Element} */ (event.target).closest("[data-axis]"));
    if (!element || event.button) return;
    event.preventDefault(); // no text is selected
    const axis = this.#axes[Number(element.dataset.axis)];
    const place = this.#placeOf(event);
    const [low, high] = rangeOf(axis, /** @type {Plot} */ (this.#plot).ranges);
    const isNear = (end) => Math.abs(end - place) < NEAR;
    const anchor = isNear(high) ? low : isNear(low) ? high : place;
    this.#drag = { axis, anchor, moved: false };
    this.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #go(event) {
    if (!this.#drag) return;
    const place = this.#placeOf(event);
    const { axis, anchor } = this.#drag;
    this.#drag.moved = true;
    this.#choose(axis, Math.min(anchor, place), Math.max(anchor, place));
  }

  #end() {
    if (!this.#drag) return;
    const { axis, moved } = this.#drag;
    this.#drag = null;
    if (!moved) this.#choose(axis, 0, 1); // a click takes the range away
    this.#plot?.chosen(this.#plot.ranges);
  }

  /** @param {PointerEvent} event */
  #placeOf({ clientY }) {
    const top = /** @type {Element} */ (this.querySelector("svg")).getBoundingClientRect().top;
    return Math.min(1, Math.max(0, (BOTTOM - (clientY - top)) / (BOTTOM - TOP)));
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const { axis: index, end } = /** @type {SVGElement} */ (event.target).dataset;
    if (!end || event.ctrlKey || event.metaKey || event.altKey) return;
    const axis = this.#axes[Number(index)];
    const [low, high] = rangeOf(axis, /** @type {Plot} */ (this.#plot).ranges);
    const isMost = end === "most";
    const place = isMost ? high : low;
    /** @type {Record<string, number>} */
    const places = {
      ArrowUp: place + axis.step,
      ArrowRight: place + axis.step,
      ArrowDown: place - axis.step,
      ArrowLeft: place - axis.step,
      PageUp: place + 5 * axis.step,
      PageDown: place - 5 * axis.step,
      Home: 0,
      End: 1,
    };
    if (event.key === "Escape") this.#choose(axis, 0, 1);
    else if (!(event.key in places)) return;
    else if (isMost) this.#choose(axis, low, Math.min(1, Math.max(low, places[event.key])));
    else this.#choose(axis, Math.max(0, Math.min(high, places[event.key])), high);
    event.preventDefault();
    this.#plot?.chosen(this.#plot.ranges);
  }
}

customElements.define("parallel-coordinates", ParallelCoordinates);

/** The keys of the rows that are within all ranges. @param {Omit<Plot, "chosen">} plot */
export const keptOf = (plot) => within(plot, axesOf(plot));

/** @param {Omit<Plot, "chosen">} plot @param {Axis[]} axes */
function within({ rows, ranges }, axes) {
  const bounds = axes.map((axis) => rangeOf(axis, ranges));
  const isKept = ({ values }) =>
    bounds.every(([low, high], index) => {
      if (low <= 0 && high >= 1) return true;
      const place = axes[index].place(values[index]);
      return place !== null && place >= low - ALMOST && place <= high + ALMOST;
    });
  return new Set(rows.filter(isKept).map(({ key }) => key));
}

/** The places between which an axis is chosen. @param {Axis} axis @param {Ranges} ranges @returns {[number, number]} */
function rangeOf(axis, ranges) {
  const [low, high] = ranges[axis.name] ?? [null, null];
  return [axis.place(low) ?? 0, axis.place(high) ?? 1];
}

/** @param {Omit<Plot, "chosen">} plot */
const axesOf = ({ axes, rows }) =>
  axes.map((name, index) =>
    axisOf(
      name,
      rows.map(({ values }) => values[index]),
    ),
  );

/** @param {number} place */
const y = (place) => (BOTTOM - place * (BOTTOM - TOP)).toFixed(1);

/** @param {Value} value */
const textOf = (value) => (typeof value === "number" ? number(value) : String(value));

/** @param {string} text */
const beginning = (text) => (text.length > MOST_CHARACTERS - 5 ? `${text.slice(0, MOST_CHARACTERS - 6)}…` : text);

/** @param {string} text */
const ending = (text) => (text.length > MOST_CHARACTERS ? `…${text.slice(1 - MOST_CHARACTERS)}` : text);

/** @param {string} name @param {Value[]} values @returns {Axis} */
function axisOf(name, values) {
  const known = [...new Set(values.filter((value) => value !== null))];
  const numbers = known.filter((value) => typeof value === "number");
  if (!numbers.length || numbers.length < known.length) return categoryAxis(name, known.map(String).sort());
  const extent = /** @type {[number, number]} */ (
    numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])
  );
  if (extent[0] > 0 && extent[1] / extent[0] >= LOG_FROM) return logAxis(name, extent);
  const isWhole = numbers.every(Number.isInteger);
  const { from, to, ticks } = valueTicks(extent, (BOTTOM - TOP) / TICK_DISTANCE, isWhole ? 1 : 0);
  const digits = isWhole ? 0 : Math.max(0, 3 - Math.floor(Math.log10(to - from || 1)));
  return {
    name,
    ticks,
    step: Math.max(1 / 50, isWhole ? 1 / (to - from) : 0),
    place: (value) => (typeof value === "number" ? (value - from) / (to - from || 1) : null),
    valueAt: (place) => Number((from + place * (to - from)).toFixed(Math.min(100, digits))),
  };
}

/** @param {string} name @param {string[]} categories @returns {Axis} */
function categoryAxis(name, categories) {
  const last = Math.max(1, categories.length - 1);
  const every = Math.ceil(categories.length / MOST_TICKS);
  return {
    name,
    ticks: categories.filter((_, index) => index % every === 0).map((value) => ({ value, text: value })),
    step: 1 / last,
    place(value) {
      const index = value === null ? -1 : categories.indexOf(String(value));
      return index < 0 ? null : index / last;
    },
    valueAt: (place) => categories[Math.min(categories.length - 1, Math.round(place * last))],
  };
}

/** @param {string} name @param {[number, number]} extent @returns {Axis} */
function logAxis(name, extent) {
  const [from, to] = [Math.floor(Math.log10(extent[0])), Math.ceil(Math.log10(extent[1]))];
  const every = Math.ceil((to - from) / ((BOTTOM - TOP) / TICK_DISTANCE));
  const powers = Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, index) => from + index * every);
  const text = (power) => (Math.abs(power) < 5 ? number(10 ** power) : `1e${power}`);
  return {
    name,
    ticks: powers.map((power) => ({ value: 10 ** power, text: text(power) })),
    step: 1 / 50,
    place: (value) => (typeof value === "number" ? (Math.log10(value) - from) / (to - from) : null),
    valueAt: (place) => Number((10 ** (from + place * (to - from))).toPrecision(3)),
  };
}
