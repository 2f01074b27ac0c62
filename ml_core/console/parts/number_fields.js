// Fields for numbers of the API, of which some may be left out. What is no number is left to the API, which says so.

import { html } from "../core/html.js";

/**
 * @param {Record<string, string>} labels Name → label.
 * @param {Record<string, any>} values
 */
export const numberFields = (labels, values) =>
  Object.entries(labels).map(
    ([name, label]) =>
      html`<label class="field"
        ><span>${label}</span> <input name="${name}" value="${values[name]}" inputmode="decimal" autocomplete="off"
      /></label>`,
  );

/**
 * What was typed; null where nothing was.
 *
 * @param {Record<string, string>} labels
 * @param {Record<string, string>} typed
 */
export function numbersOf(labels, typed) {
  const read = (text) => (text === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text);
  return Object.fromEntries(Object.keys(labels).map((name) => [name, read((typed[name] ?? "").trim())]));
}
