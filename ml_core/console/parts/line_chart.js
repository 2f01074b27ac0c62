// <line-chart label="loss">: lines over steps, or over time with the attribute `time`. At most four points of a line are drawn
// for each pixel column, so 100,000 points move as 1,000 do. The values are read by pointer, by arrow keys, and as a table.
// A range of x is chosen by dragging across the plot, or by arrow keys with Shift and then Enter.

import { clock, number } from "../core/format.js";
import { html, render } from "../core/html.js";
import { table } from "./table.js";
import { timeTicks, valueTicks } from "./ticks.js";

/** @typedef {[number, number | null]} Point x, a step or a time in ms; y, null where there is no finite value. */
/** @typedef {{name: string, points: Point[]}} Series Its points are in the order of x. */
/** @typedef {[number, number]} Range The x between which lines are shown. */
/** @typedef {{from: number, to: number, at: (value: number) => number}} Scale */

const HEIGHT = 240;
const [TOP, RIGHT, BOTTOM] = [10, 14, 24];
const CHARACTER = 7; // pixels of a digit of a label
const [LABEL_WIDTH, LABEL_HEIGHT] = [100, 42]; // of the room for a label of an axis
const EDGE = 4; // how far beyond the axes a line is seen: half its width, and a dot
const DOT = "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0"; // a point between gaps
const COLORS = 8;
const MOST_ROWS = 100;

class LineChart extends HTMLElement {
  static observedAttributes = ["label", "time"];
  /** What is shown; null: all. Set before the series. @type {Range | null} */
  range = null;
  /** Called when somebody has chosen a range, or all; without it nothing can be chosen. @type {((range: Range | null) => void) | undefined} */
  chosen;
  /** @type {Series[]} */
  #series = [];
  /** The points within the range. @type {Series[]} */
  #within = [];
  /** @type {{x: Scale, y: Scale} | undefined} */
  #scales;
  /** @type {number | null} The x that is read; null: the last of each line. */
  #at = null;
  /** @type {number | null} The x from which somebody chooses, up to the one that is read. */
  #start = null;
  #width = 0;
  // In the next frame: a size that changes while sizes are observed is an error.
  #resized = new ResizeObserver(() => requestAnimationFrame(() => this.clientWidth !== this.#width && this.#show()));

  constructor() {
    super();
    this.addEventListener("pointerdown", (event) => this.#began(event));
    this.addEventListener("pointermove", (event) => this.#pointed(event));
    this.addEventListener("pointerup", () => this.#choose());
    for (const left of ["pointerleave", "pointercancel"]) {
      this.addEventListener(left, () => this.#scales && this.#read(null));
    }
    this.addEventListener("click", ({ target }) => {
      if (!(/** @type {Element} */ (target).matches(".all"))) return;
      this.#change(null);
      /** @type {HTMLElement | null} */ (this.querySelector(".plot"))?.focus();
    });
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("toggle", () => this.#show(), true); // the table is made when it is unfolded
  }

  connectedCallback() {
    this.#resized.observe(this);
    this.#show();
  }

  disconnectedCallback() {
    this.#resized.disconnect();
  }

  attributeChangedCallback() {
    this.#show();
  }

  get label() {
    return this.getAttribute("label") ?? "";
  }

  set label(text) {
    this.setAttribute("label", text);
  }

  /** Show these lines; what is read stays. @param {Series[]} series */
  set series(series) {
    this.#series = series;
    this.#show();
  }

  get series() {
    return this.#series;
  }

  #show() {
    this.#width = this.clientWidth; // 0: it can't be seen
    if (!this.#width) return;
    const { label, range } = this;
    const all = range && html`<button type="button" class="all">All ${this.#unit}s</button>`;
    this.#within = this.#series.map(({ name, points }) => ({ name, points: range ? between(points, range) : points }));
    if (!this.#within.some(({ points }) => points.length)) {
      this.#scales = undefined;
      return render(
        this,
        html`<figure>
          <figcaption>${label} ${all}</figcaption>
          <p class="state">There is no point ${range ? `from ${this.#place(range[0])} to ${this.#place(range[1])}` : "yet"}.</p>
        </figure>`,
      );
    }
    const isOpen = this.querySelector("details")?.open;
    render(
      this,
      html`<figure>
        <figcaption>${label} <span class="quiet at"></span> ${all}</figcaption>
        <div class="plot" role="slider" tabindex="0" aria-label="${`${label}: value at a ${this.#unit}`}">
          ${this.#picture()}
        </div>
        <ul class="legend">
          ${this.#series.map(
            ({ name }, index) =>
              html`<li>${swatch(index)} ${name} <b></b></li>`,
          )}
        </ul>
        <details>
          <summary>${label} as a table</summary>
          ${isOpen && this.#table()}
        </details>
      </figure>`,
    );
    this.#read(this.#at, this.#start);
  }

  /** @param {number} at */
  #place = (at) => (this.hasAttribute("time") ? clock(at) : `step ${number(at)}`);

  get #unit() {
    return this.hasAttribute("time") ? "time" : "step";
  }

  #picture() {
    const width = this.#width;
    const bottom = HEIGHT - BOTTOM;
    const rows = valueTicks(extent(this.#within, 1), bottom / LABEL_HEIGHT);
    const left = CHARACTER * Math.max(...rows.ticks.map(({ text }) => text.length)) + 10;
    const [from, to] = this.range ?? extent(this.#within, 0);
    const most = (width - left) / LABEL_WIDTH;
    const columns = this.hasAttribute("time") ? timeTicks([from, to], most) : valueTicks([from, to], most, 1);
    const x = scale(from, to, left, width - RIGHT);
    const y = scale(rows.from, rows.to, bottom, TOP);
    this.#scales = { x, y };
    const [edge, across, down] = [left - EDGE, width - left - RIGHT + 2 * EDGE, bottom + EDGE];
    return html`<svg viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" aria-hidden="true">
      <path
        class="grid"
        d="${rows.ticks.map((tick) => `M${left} ${y.at(tick.value).toFixed(1)}H${width - RIGHT}`).join("")}"
      ></path>
      ${rows.ticks.map((tick) => html`<text x="${left - 7}" y="${(y.at(tick.value) + 4).toFixed(1)}" class="end">${tick.text}</text>`)}
      ${columns.ticks
        .filter((tick) => tick.value >= from && tick.value <= to)
        .map(
          ({ value, text }) =>
            html`<text
              x="${Math.min(x.at(value), width - (CHARACTER * text.length) / 2).toFixed(1)}"
              y="${HEIGHT - 6}"
              class="middle"
              >${text}</text
            >`,
        )}
      <rect class="range" y="${TOP}" height="${bottom - TOP}" visibility="hidden"></rect>
      <svg x="${edge}" width="${across}" height="${down}" viewBox="${edge} 0 ${across} ${down}">
        ${this.#series.map(({ points }, index) => {
          const drawn = this.range ? between(points, this.range, 1) : points;
          const marks = this.hasAttribute("time") ? "" : gaps(drawn, x, bottom); // at some time there was nothing to measure
          return html`<path class="${lineStyle(index)}" d="${line(drawn, x, y)}${marks}"></path>`;
        })}
      </svg>
      <line class="cursor" y1="${TOP}" y2="${bottom}" visibility="hidden"></line>
      ${this.#series.map((_, index) => html`<circle class="${lineStyle(index)}" r="4" visibility="hidden"></circle>`)}
    </svg>`;
  }

  /** Show the values at an x, and from which x to it somebody chooses. @param {number | null} at @param {number | null} [start] */
  #read(at, start = null) {
    const { x, y } = /** @type {{x: Scale, y: Scale}} */ (this.#scales);
    if (at !== null && (at < x.from || at > x.to)) at = null; // it was left behind by what is new
    [this.#at, this.#start] = [at, start];
    const found = this.#within.map(({ points }) => nearest(points, at));
    const isRange = at !== null && start !== null && start !== at;
    const place = at === null ? "" : `${isRange ? `from ${this.#place(start)} to ` : ""}${this.#place(at)}`;
    /** @type {Element} */ (this.querySelector(".at")).textContent = place || "last values";
    this.querySelectorAll(".legend b").forEach((each, index) => (each.textContent = number(found[index]?.[1])));
    set(this.querySelector(".cursor"), {
      x1: x.at(at ?? 0),
      x2: x.at(at ?? 0),
      visibility: at === null ? "hidden" : "visible",
    });
    const [left, right] = [x.at(at ?? 0), x.at(start ?? 0)].sort((one, other) => one - other);
    set(this.querySelector(".range"), { x: left, width: right - left, visibility: isRange ? "visible" : "hidden" });
    this.querySelectorAll("circle").forEach((circle, index) => {
      const [cx, value] = found[index] ?? [0, null];
      const isShown = at !== null && hasValue(value);
      set(circle, { cx: x.at(cx), cy: y.at(value ?? 0), visibility: isShown ? "visible" : "hidden" });
    });
    const said = this.#series.map(({ name }, index) => `${name} ${number(found[index]?.[1])}`).join("; ");
    set(this.querySelector(".plot"), {
      "aria-valuemin": x.from,
      "aria-valuemax": x.to,
      "aria-valuenow": at ?? x.to,
      "aria-valuetext": `${place || "last"}: ${said}`,
    });
  }

  /** @param {PointerEvent} event */
  #began(event) {
    const plot = /** @type {Element} */ (event.target).closest(".plot");
    if (!plot || !this.chosen || event.button) return;
    plot.setPointerCapture(event.pointerId);
    this.#start = null;
    this.#pointed(event);
    this.#start = this.#at;
  }

  /** Show the range that was chosen, unless it is one x. */
  #choose() {
    const [start, at] = [this.#start, this.#at];
    if (start === null || at === null) return;
    this.#read(at);
    if (start !== at) this.#change([Math.min(start, at), Math.max(start, at)]);
  }

  /** @param {Range | null} range */
  #change(range) {
    this.range = range;
    this.#show();
    this.chosen?.(range);
  }

  /** @param {PointerEvent} event */
  #pointed({ target, clientX }) {
    const plot = /** @type {Element} */ (target).closest(".plot");
    if (!plot || !this.#scales) return;
    const { x } = this.#scales;
    const [start, end] = [x.at(x.from), x.at(x.to)];
    const share = (clientX - plot.getBoundingClientRect().left - start) / (end - start);
    this.#read(this.#snapped(x.from + share * (x.to - x.from)), this.#start);
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (!this.#scales || !(/** @type {Element} */ (event.target).matches(".plot"))) return;
    const { from, to } = this.#scales.x;
    const now = this.#at ?? to;
    const far = (to - from) / 10;
    const later = () =>
      Math.min(to, ...this.#within.flatMap(({ points }) => points[first(points, (x) => x > now)]?.[0] ?? []));
    const earlier = () =>
      Math.max(from, ...this.#within.flatMap(({ points }) => points[first(points, (x) => x >= now) - 1]?.[0] ?? []));
    /** @type {Record<string, () => number | null>} */
    const moves = {
      ArrowRight: later,
      ArrowUp: later,
      ArrowLeft: earlier,
      ArrowDown: earlier,
      PageUp: () => this.#snapped(now + far),
      PageDown: () => this.#snapped(now - far),
      Home: () => from,
      End: () => to,
      Escape: () => null,
    };
    const move = moves[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(move || event.key === "Enter")) return;
    event.preventDefault();
    if (!move) this.#choose();
    else this.#read(move(), event.shiftKey && this.chosen ? (this.#start ?? now) : null);
  }

  /** The x of the nearest point of all lines. @param {number} at */
  #snapped(at) {
    const { from, to } = /** @type {{x: Scale}} */ (this.#scales).x;
    const within = Math.min(to, Math.max(from, at));
    const xs = this.#within.flatMap(({ points }) => nearest(points, within)?.[0] ?? []);
    return xs.reduce((best, x) => (Math.abs(x - within) < Math.abs(best - within) ? x : best), xs[0] ?? from);
  }

  #table() {
    const all = new Set(this.#within.flatMap(({ points }) => thinned(points).map(([x]) => x)));
    const rows = thinned([...all].sort((one, other) => one - other));
    const isThinned = rows.length < Math.max(all.size, ...this.#within.map(({ points }) => points.length));
    return html`${isThinned && html`<p class="quiet">${rows.length} rows, each with the nearest point of each line.</p>`}
    ${table(
      this.label,
      [
        { name: this.#unit, isHead: true, cell: (x) => (this.hasAttribute("time") ? clock(x) : number(x)) },
        ...this.#within.map(({ name, points }) => ({
          name,
          isNumber: true,
          cell: (x) => number(nearest(points, x)?.[1]),
        })),
      ],
      rows,
      String,
    )}`;
  }
}

customElements.define("line-chart", LineChart);

/** The class of a line: its colour, and dashes where the colours are used up. @param {number} index */
const lineStyle = (index) => `curve color${index % COLORS} dash${Math.floor(index / COLORS) % 3}`;

/** A piece of a line, for its name. @param {number} index */
export const swatch = (index) =>
  html`<svg class="swatch ${lineStyle(index)}" viewBox="0 0 22 8" aria-hidden="true"><path d="M1 4h20"></path></svg>`;

/** @param {number} from @param {number} to @param {number} start @param {number} end @returns {Scale} */
function scale(from, to, start, end) {
  const factor = (end - start) / (to - from || 1);
  return { from, to, at: (value) => start + (value - from) * factor };
}

/** @param {Series[]} series @param {0 | 1} axis @returns {[number, number]} */
function extent(series, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (const { points } of series) {
    for (const point of points) {
      const value = point[axis];
      if (!hasValue(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Of each pixel column the first, lowest, highest and last point of a line. @param {Point[]} points @param {Scale} x @param {Scale} y */
function line(points, x, y) {
  let text = "";
  let drawn = 0; // points since the last gap
  let column = NaN;
  /** @type {[number, number, number, number]} */
  let kept = [0, 0, 0, 0];
  const draw = () => {
    if (Number.isNaN(column)) return;
    const [start, low, high, end] = kept;
    for (const index of new Set([start, Math.min(low, high), Math.max(low, high), end])) {
      const [at, value] = /** @type {[number, number]} */ (points[index]);
      text += `${drawn++ ? "L" : "M"}${x.at(at).toFixed(1)} ${y.at(value).toFixed(1)}`;
    }
  };
  const end = () => {
    draw();
    if (drawn === 1) text += DOT;
    [column, drawn] = [NaN, 0];
  };
  points.forEach(([at, value], index) => {
    if (!hasValue(value)) return end();
    const here = Math.round(x.at(at));
    if (here !== column) {
      draw();
      [column, kept] = [here, [index, index, index, index]];
    }
    if (value < /** @type {number} */ (points[kept[1]][1])) kept[1] = index;
    if (value > /** @type {number} */ (points[kept[2]][1])) kept[2] = index;
    kept[3] = index;
  });
  end();
  return text;
}

/** Marks on the axis where there is no finite value. @param {Point[]} points @param {Scale} x @param {number} bottom */
function gaps(points, x, bottom) {
  const columns = new Set(points.filter(([, value]) => !hasValue(value)).map(([at]) => Math.round(x.at(at))));
  return [...columns].map((column) => `M${column} ${bottom}v-6`).join("");
}

/** @param {number | null} value @returns {value is number} */
const hasValue = (value) => Number.isFinite(value);

/** The index of the first point whose x passes a test that all later ones pass. @param {Point[]} points @param {(x: number) => boolean} passes */
function first(points, passes) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (passes(points[middle][0])) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The points within a range, and some more at each end. @param {Point[]} points @param {Range} range @param {number} [more] */
const between = (points, [from, to], more = 0) =>
  points.slice(Math.max(0, first(points, (x) => x >= from) - more), first(points, (x) => x > to) + more);

/** The point of a line that is nearest to x; null beyond its ends. @param {Point[]} points @param {number | null} at */
function nearest(points, at) {
  if (at === null || !points.length) return points[points.length - 1];
  if (at < points[0][0] || at > points[points.length - 1][0]) return null;
  const index = first(points, (x) => x >= at);
  const [before, after] = [points[index - 1], points[index]];
  return before && at - before[0] < after[0] - at ? before : after;
}

/** Some of the items, evenly, with both ends. @template T @param {T[]} items @returns {T[]} */
function thinned(items) {
  if (items.length <= MOST_ROWS) return items;
  return Array.from({ length: MOST_ROWS }, (_, row) => items[Math.round((row * (items.length - 1)) / (MOST_ROWS - 1))]);
}

/** @param {Element | null} element @param {Record<string, string | number>} attributes */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element?.setAttribute(name, String(value));
}
