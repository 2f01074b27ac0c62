// Where the labels of an axis are, and what they say.

/** @typedef {{from: number, to: number, ticks: {value: number, text: string}[]}} Axis */

const DAY = 86_400_000;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200].map(
  (s) => 1000 * s,
);
const [SMALLEST, LARGEST] = [1e-300, 1e300]; // within which no distance is 0 or infinite
const FORMATS = {
  second: new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" }),
  minute: new Intl.DateTimeFormat("en-GB", { timeStyle: "short" }),
  day: new Intl.DateTimeFormat("en", { month: "short", day: "numeric" }),
};

/**
 * An axis that ends at labels: multiples of 1, 2 or 5 times a power of ten.
 *
 * @param {[number, number]} extent
 * @param {number} most About how many labels there is room for.
 * @param {number} [least] The smallest distance of labels.
 * @returns {Axis}
 */
export function valueTicks([low, high], most, least = 0) {
  const pad = low === high ? Math.abs(low) / 10 || 1 : 0;
  const [from, to] = [Math.max(-LARGEST, low - pad), Math.min(LARGEST, high + pad)];
  const step = Math.max(least, niceStep((to - from) / Math.max(1, most)));
  const [start, end] = [Math.floor(from / step + 1e-9), Math.ceil(to / step - 1e-9)];
  const values = Array.from({ length: end - start + 1 }, (_, index) => (start + index) * step);
  const text = textOf(Math.max(Math.abs(start), Math.abs(end)) * step, step);
  return { from: start * step, to: end * step, ticks: values.map((value) => ({ value, text: text(value) })) };
}

/**
 * An axis of time in ms, with labels at round times of the reader's zone.
 *
 * @param {[number, number]} extent
 * @param {number} most
 * @returns {Axis}
 */
export function timeTicks([from, to], most) {
  const rough = (to - from) / Math.max(1, most);
  const step = TIME_STEPS.find((each) => each >= rough) ?? DAY * Math.ceil(rough / DAY);
  const zone = 60_000 * new Date(to).getTimezoneOffset();
  const format = FORMATS[step >= DAY ? "day" : step >= 60_000 ? "minute" : "second"];
  const start = Math.ceil((from - zone) / step);
  const count = Math.floor((to - zone) / step) - start + 1;
  const values = Array.from({ length: Math.max(0, count) }, (_, index) => (start + index) * step + zone);
  return { from, to, ticks: values.map((value) => ({ value, text: format.format(value) })) };
}

/** @param {number} value */
const exponent = (value) => Math.floor(Math.log10(value) + 1e-9);

/** @param {number} rough */
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(Math.max(SMALLEST, rough)));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
}

/** Writes values so that those a step apart differ. @param {number} most @param {number} step */
function textOf(most, step) {
  const digits = Math.max(1, exponent(most) - exponent(step) + 1);
  const decimals = Math.max(0, -exponent(step));
  if (decimals > 5 || most >= 1e15)
    return (/** @type {number} */ value) => (value === 0 ? "0" : value.toExponential(digits - 1));
  const isLarge = most >= 1e5 && digits <= 4;
  const format = isLarge
    ? new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: digits })
    : new Intl.NumberFormat("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (/** @type {number} */ value) => format.format(value);
}
