// The plan of a training: its strategy, what it is estimated to take and cost, and the alternatives.

import { duration, number, words } from "../core/format.js";
import { html } from "../core/html.js";
import { facts } from "./table.js";

const LEAST = 0.1; // what is less is not told apart

/** @typedef {{strategy: string, seconds: number | null, reason: string}} Option */

/**
 * @param {{strategy: string, options: Option[], missing: string[]}} plan
 * @param {number} cpus
 * @param {{quota: any, usage: any}} share Of the tenant.
 */
export function planView({ strategy, options: [chosen, ...others], missing }, cpus, share) {
  const seconds = chosen.seconds ?? 0;
  return html`${missing.map((text) => html`<p class="problem" role="alert">${text}</p>`)}
    ${facts([
      ["Strategy", words(strategy)],
      ["Takes about", seconds < LEAST ? `less than ${LEAST} s` : duration(seconds)],
      ["Costs about", coreSeconds(cpus * seconds)],
      usedFact(share),
    ])}
    <p class="quiet">${chosen.reason}. An estimate is right within a factor of about three.</p>
    <details>
      <summary>Alternatives</summary>
      <ul class="rows">
        ${others.map(
          ({ strategy: name, seconds: estimate, reason }) =>
            html`<li data-key="strategy-${name}">
              <b>${words(name)}</b> ${estimate === null ? "no" : `about ${duration(estimate)}`}
              <span class="quiet">${reason}</span>
            </li>`,
        )}
      </ul>
    </details>`;
}

/** What a tenant has used of its quota. @param {{quota: any, usage: any}} share @returns {[string, ReturnType<typeof html>]} */
export const usedFact = ({ quota: { cpu_seconds_per_day: most }, usage }) => [
  "Used in 24 hours",
  html`${coreSeconds(usage.cpu_seconds)} ${most !== null && html`<span class="quiet">of ${number(most)}</span>`}`,
];

/** @param {number} count */
export const coreSeconds = (count) =>
  `${count > 0 && count < LEAST ? `less than ${LEAST}` : number(Math.round(10 * count) / 10)} core-seconds`;
