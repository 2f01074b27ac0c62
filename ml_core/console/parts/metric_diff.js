// A metric in two versions: the second value, and by how much it is better or worse, in words, a sign and a colour.

import { number } from "../core/format.js";
import { html } from "../core/html.js";

/**
 * @param {{version2: number | null, difference: number | null, better: string | null}} metric
 *   As the API compares them: which is better is its knowledge.
 * @param {string} second The name of the second version.
 */
export function metricDiff({ version2, difference, better }, second) {
  if (difference === null) return html`${number(version2)}`;
  const sign = difference > 0 ? "+" : difference < 0 ? "−" : "±";
  const word = difference === 0 ? "equal" : better === null ? "differs" : better === second ? "better" : "worse";
  return html`${number(version2)} <span class="diff ${word}">${sign}${number(Math.abs(difference))} ${word}</span>`;
}
