// <line-chart label="loss">: lines over steps, or over time with the attribute `time`. At most four points of a line are drawn
// for each pixel column, so 100,000 points move as 1,000 do. The values are read by pointer, by arrow keys, and as a table.

import { clock, number } from "../core/format.js";
import { html, render } from "../core/html.js";
import { table } from "./table.js";
import { timeTicks, valueTicks } from "./ticks.js";

/** @typedef {[number, number | null]} Point x, a step or a time in ms; y, null where there is no finite value. */
/** @typedef {{name: string, points: Point[]}} Series Its points are in the order of x. */
/** @typedef {{from: number, to: number, at: (value: number) => number}} Scale */

const HEIGHT = 240;
const [TOP, RIGHT, BOTTOM] = [10, 14, 24];
const CHARACTER = 7; // pixels of a digit of a label
const [LABEL_WIDTH, LABEL_HEIGHT] = [100, 42]; // of the room for a label of an axis
const COLORS = 8;
const MOST_ROWS = 100;

class LineChart extends HTMLElement {
  static observedAttributes = ["label", "time"];
  /** @type {Series[]} */
  #series = [];
  /** @type {{x: Scale, y: Scale} | undefined} */
  #scales;
  /** @type {number | null} The x that is read; null: the last of each line. */
  #at = null;
  #width = 0;
  // In the next frame: a size that changes while sizes are observed is an error.
  #resized = new ResizeObserver(() => requestAnimationFrame(() => this.clientWidth !== this.#width && this.#show()));

  constructor() {
    super();
    this.addEventListener("pointermove", (event) => this.#pointed(event));
    this.addEventListener("pointerleave", () => this.#scales && this.#read(null));
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
    const { label } = this;
    if (!this.#series.some(({ points }) => points.length)) {
      this.#scales = undefined;
      return render(
        this,
        html`<figure>
          <figcaption>${label}</figcaption>
          <p class="state">There is no point yet.</p>
        </figure>`,
      );
    }
    const isOpen = this.querySelector("details")?.open;
    render(
      this,
      html`<figure>
        <figcaption>${label} <span class="quiet at"></span></figcaption>
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
    this.#read(this.#at);
  }

  get #unit() {
    return this.hasAttribute("time") ? "time" : "step";
  }

  #picture() {
    const width = this.#width;
    const bottom = HEIGHT - BOTTOM;
    const rows = valueTicks(extent(this.#series, 1), bottom / LABEL_HEIGHT);
    const left = CHARACTER * Math.max(...rows.ticks.map(({ text }) => text.length)) + 10;
    const [from, to] = extent(this.#series, 0);
    const most = (width - left) / LABEL_WIDTH;
    const columns = this.hasAttribute("time") ? timeTicks([from, to], most) : valueTicks([from, to], most, 1);
    const x = scale(from, to, left, width - RIGHT);
    const y = scale(rows.from, rows.to, bottom, TOP);
    this.#scales = { x, y };
    return html`<svg viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" aria-hidden="true">
      <path
        class="grid"
        d="${rows.ticks.map((tick) => `M${left} ${y.at(tick.value).toFixed(1)}H${width - RIGHT}`).join("")}"
      ></path>
      ${rows.ticks.map((tick) => html`<text x="${left - 7}" y="${(y.at(tick.value) + 4).toFixed(1)}" class="end">${tick.text}</text>`)}
      ${columns.ticks
        .filter((tick) => tick.value >= from && tick.value <= to)
        .map(
          (tick) => html`<text x="${x.at(tick.value).toFixed(1)}" y="${HEIGHT - 6}" class="middle">${tick.text}</text>`,
        )}
      ${this.#series.map(({ points }, index) => html`<path class="${lineStyle(index)}" d="${line(points, x, y)}${gaps(points, x, bottom)}"></path>`)}
      <line class="cursor" y1="${TOP}" y2="${bottom}" visibility="hidden"></line>
      ${this.#series.map((_, index) => html`<circle class="${lineStyle(index)}" r="4" visibility="hidden"></circle>`)}
    </svg>`;
  }

  /** Show the values at an x. @param {number | null} at */
  #read(at) {
    const { x, y } = /** @type {{x: Scale, y: Scale}} */ (this.#scales);
    if (at !== null && (at < x.from || at > x.to)) at = null; // it was left behind by what is new
    this.#at = at;
    const found = this.#series.map(({ points }) => nearest(points, at));
    const place = at === null ? "" : this.hasAttribute("time") ? clock(at) : `step ${number(at)}`;
    /** @type {Element} */ (this.querySelector(".at")).textContent = place || "last values";
    this.querySelectorAll(".legend b").forEach((each, index) => (each.textContent = number(found[index]?.[1])));
    set(this.querySelector(".cursor"), {
      x1: x.at(at ?? 0),
      x2: x.at(at ?? 0),
      visibility: at === null ? "hidden" : "visible",
    });
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
  #pointed({ target, clientX }) {
    const plot = /** @type {Element} */ (target).closest(".plot");
    if (!plot || !this.#scales) return;
    const { x } = this.#scales;
    const [start, end] = [x.at(x.from), x.at(x.to)];
    const share = (clientX - plot.getBoundingClientRect().left - start) / (end - start);
    this.#read(this.#snapped(x.from + share * (x.to - x.from)));
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (!this.#scales || !(/** @type {Element} */ (event.target).matches(".plot"))) return;
    const { from, to } = this.#scales.x;
    const now = this.#at ?? to;
    const far = (to - from) / 10;
    const later = () =>
      Math.min(to, ...this.#series.flatMap(({ points }) => points[first(points, (x) => x > now)]?.[0] ?? []));
    const earlier = () =>
      Math.max(from, ...this.#series.flatMap(({ points }) => points[first(points, (x) => x >= now) - 1]?.[0] ?? []));
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
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#read(move());
  }

  /** The x of the nearest point of all lines. @param {number} at */
  #snapped(at) {
    const { from, to } = /** @type {{x: Scale}} */ (this.#scales).x;
    const within = Math.min(to, Math.max(from, at));
    const xs = this.#series.flatMap(({ points }) => nearest(points, within)?.[0] ?? []);
    return xs.reduce((best, x) => (Math.abs(x - within) < Math.abs(best - within) ? x : best), xs[0] ?? from);
  }

  #table() {
    const all = new Set(this.#series.flatMap(({ points }) => thinned(points).map(([x]) => x)));
    const rows = thinned([...all].sort((one, other) => one - other));
    const isThinned = rows.length < Math.max(all.size, ...this.#series.map(({ points }) => points.length));
    return html`${isThinned && html`<p class="quiet">${rows.length} rows, each with the nearest point of each line.</p>`}
    ${table(
      this.label,
      [
        { name: this.#unit, isHead: true, cell: (x) => (this.hasAttribute("time") ? clock(x) : number(x)) },
        ...this.#series.map(({ name, points }) => ({
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
  let isDown = false;
  let column = NaN;
  /** @type {[number, number, number, number]} */
  let kept = [0, 0, 0, 0];
  const draw = () => {
    if (Number.isNaN(column)) return;
    const [start, low, high, end] = kept;
    for (const index of new Set([start, Math.min(low, high), Math.max(low, high), end])) {
      const [at, value] = /** @type {[number, number]} */ (points[index]);
      // A line of no length is a dot.
      text += `${isDown ? "L" : "M"}${x.at(at).toFixed(1)} ${y.at(value).toFixed(1)}${isDown ? "" : "h0"}`;
      isDown = true;
    }
  };
  points.forEach(([at, value], index) => {
    if (!hasValue(value)) {
      draw();
      [column, isDown] = [NaN, false];
      return;
    }
    const here = Math.round(x.at(at));
    if (here !== column) {
      draw();
      [column, kept] = [here, [index, index, index, index]];
    }
    if (value < /** @type {number} */ (points[kept[1]][1])) kept[1] = index;
    if (value > /** @type {number} */ (points[kept[2]][1])) kept[2] = index;
    kept[3] = index;
  });
  draw();
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
