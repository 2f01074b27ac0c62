// When each environment served what: a lane for each, from its first move that is shown until now. The moves themselves
// are a list beside it, so it is a picture.

import { html } from "../core/html.js";
import { servedBy } from "./moves.js";

const HUES = 6; // of style.css
const NARROW = 4; // percent of the width in which no name is legible

/** @typedef {{at: string, version: string | null, canary: {version: string} | null, shadow: string | null, action: string}} Move */

/** @param {{environment: string, moves: Move[]}[]} lanes Moves newest first. */
export function timeline(lanes) {
  const moved = lanes.filter(({ moves }) => moves.length);
  if (!moved.length) return html``;
  const until = Date.now();
  const since = Math.min(...moved.map(({ moves }) => time(moves[moves.length - 1])));
  const names = [...new Set(moved.flatMap(({ moves }) => moves.map((move) => move.version)).reverse())].filter(Boolean);
  return html`<div class="lanes">
    ${moved.map(({ environment, moves }) => lane(environment, moves, { since, until }, names))}
    <span></span>
    <p class="quiet ends"><when-time datetime="${new Date(since).toISOString()}"></when-time> <span>now</span></p>
  </div>`;
}

/** @param {Move} move */
const time = (move) => new Date(move.at).getTime();

/** @param {string} environment @param {Move[]} moves @param {{since: number, until: number}} range @param {(string | null)[]} names */
function lane(environment, moves, { since, until }, names) {
  const share = (moment) => (100 * (moment - since)) / Math.max(1, until - since);
  const parts = moves.map((move, index) => ({ move, from: time(move), to: index ? time(moves[index - 1]) : until }));
  const served = moves[0].version ? `version ${moves[0].version}` : "nothing";
  return html`<b data-key="name-${environment}">${environment}</b>
    <svg
      class="lane"
      data-key="lane-${environment}"
      role="img"
      aria-label="${environment}: ${moves.length} moves, serves ${served} now"
    >
      ${parts.map(({ move, from, to }) => {
        const [x, width] = [share(from), share(to) - share(from)];
        const style = move.version ? `hue${names.indexOf(move.version) % HUES}` : "nothing";
        return html`<svg x="${x.toFixed(3)}%" width="${width.toFixed(3)}%" height="100%">
          <title>${title(move)}</title>
          <rect class="${style}" width="100%" height="100%"></rect>
          ${move.canary && html`<rect class="canary" y="75%" width="100%" height="25%"></rect>`}
          ${width > NARROW && html`<text x="6" y="19">${move.version ?? "–"}</text>`}
        </svg>`;
      })}
    </svg>`;
}

/** @param {Move} move */
function title(move) {
  const { stable, canary, shadow } = servedBy(/** @type {any} */ (move));
  const others = [canary && `canary ${canary.version} ${canary.percent} %`, shadow && `shadow ${shadow}`].filter(
    Boolean,
  );
  const moment = new Date(move.at).toISOString().slice(0, 19).replace("T", " ");
  return [`${stable ? `version ${stable}` : "nothing"} from ${moment} UTC`, ...others].join(", ");
}
