// What changed meanwhile: a page asks for it in an interval, because each question is a statement of milliseconds, and an
// answer needs no connection that stays open. While the page can't be seen, nothing is asked.

import { ApiError, ask, at } from "./api.js";

const CHANGES_EVERY_S = 2;
const AWAY_MOST_S = 15;

/**
 * Call `refresh` when something may have changed, until the signal is aborted.
 *
 * @param {{tenant?: string, everyS?: number, signal: AbortSignal, refresh: () => Promise<void>,
 *   noticed: (message: string) => void}} options
 *   tenant: refresh after each change of its audit; everyS: refresh in this interval; noticed: tells whether the platform
 *   is away ("": it is there).
 */
export async function follow({ tenant, everyS, signal, refresh, noticed }) {
  const changes = tenant && !everyS ? auditOf(tenant, signal) : null;
  let pauseS = everyS ?? CHANGES_EVERY_S;
  let wasAway = false;
  while (await slept(pauseS, signal)) {
    try {
      if (!changes || (await changes()) || wasAway) await refresh();
      if (wasAway) noticed("");
      wasAway = false;
      pauseS = everyS ?? CHANGES_EVERY_S;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError && error.mayPass)) throw error;
      wasAway = true;
      pauseS = Math.min(pauseS * 1.5, AWAY_MOST_S);
      noticed("The platform does not answer; what is shown is older. The page tries again.");
    }
  }
}

/** Asks whether a tenant's audit has anything new. @param {string} tenant @param {AbortSignal} signal */
function auditOf(tenant, signal) {
  const path = `${at("tenants", tenant)}/audit`;
  /** @type {string | undefined} */
  let cursor;
  return async () => {
    const isFirst = cursor === undefined;
    const query = isFirst ? { descending: true, limit: 1 } : { after: cursor, limit: 100 };
    const { items } = await ask("GET", path, { query, signal });
    if (items.length) cursor = items.at(-1).cursor;
    return isFirst || items.length > 0; // the page was loaded before the first question
  };
}

/** Wait, and until the page can be seen; whether to go on. @param {number} seconds @param {AbortSignal} signal */
function slept(seconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      if (signal.aborted) resolve(false);
      else if (document.hidden) document.addEventListener("visibilitychange", done, { once: true });
      else resolve(true);
    };
    const timer = setTimeout(done, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve(false)), { once: true });
  });
}
