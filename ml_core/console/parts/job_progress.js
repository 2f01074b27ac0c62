// How far a job is: the stage, and a bar where its process said how much there is to do.

import { duration, number } from "../core/format.js";
import { html } from "../core/html.js";

/** @param {{state: string, progress: Record<string, any>}} job */
export function jobProgress({ state, progress }) {
  const { stage, done, total, unit, metrics, eta_s: left } = progress;
  if (state !== "running" || !stage) return html``;
  const measured = Object.entries(metrics ?? {}).slice(0, 2);
  return html`${stage}
  ${
    typeof done === "number" &&
    total > 0 &&
    html`<progress max="${total}" value="${done}" aria-label="${stage}"></progress> ${number(done)}/${number(total)}
      ${unit}`
  }
  ${typeof left === "number" && html`<span class="quiet">· about ${duration(left)} left</span>`}
  ${measured.map(([name, value]) => html`<span class="quiet">· ${name} ${number(value)}</span> `)}`;
}
