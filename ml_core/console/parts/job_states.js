// How many jobs are in which state.

import { number } from "../core/format.js";
import { html } from "../core/html.js";
import { badge } from "./states.js";

/** @param {Record<string, number>} states */
export const statesView = (states) =>
  Object.entries(states)
    .filter(([, count]) => count > 0)
    .map(([state, count]) => html`${badge(state, `${number(count)} ${state}`)} `);
