// Values as people read them.

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const WHOLE = new Intl.NumberFormat("en");

/** A measured value with four digits; a dash for none. @param {unknown} value */
export function number(value) {
  if (typeof value !== "number") return value === null || value === undefined ? "–" : String(value);
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-6)) return value.toExponential(3);
  return Number.isInteger(value) ? WHOLE.format(value) : NUMBER.format(value);
}

/** With a space at which no line ends. @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}\u00a0%`;

/** @param {number} count @param {string} noun @param {string} [plural] */
export const counted = (count, noun, plural = `${noun}s`) => `${WHOLE.format(count)} ${count === 1 ? noun : plural}`;

/** @param {number} size */
export function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const step = size < 1000 ? 0 : Math.min(Math.floor(Math.log10(size) / 3), 4);
  return `${NUMBER.format(size / 1000 ** step)} ${units[step]}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** What a change of the audit is about, the model or dataset first. @param {Record<string, unknown>} subject */
export const subjectOf = ({ model_id: model, dataset_id: dataset, ...others }) =>
  [model, dataset, ...Object.values(others)].filter(Boolean).join(" ");

/** A moment in UTC, to the minute. @param {number} seconds Since 1970. */
export const moment = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ");

const LOCAL = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** A moment in the reader's zone, and in UTC. @param {number} ms Since 1970. */
export const clock = (ms) => `${LOCAL.format(ms)} (${new Date(ms).toISOString().slice(11, 19)} UTC)`;

/** Text of any JSON value. @param {unknown} value */
export const shown = (value) =>
  typeof value === "string" ? value : typeof value === "number" ? number(value) : JSON.stringify(value);

/** A word of the API, such as `start_canary`. @param {string} word */
export const words = (word) => word.replaceAll("_", " ");
