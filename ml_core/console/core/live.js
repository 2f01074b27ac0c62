// What changed meanwhile: the platform says that something did, on a stream that is open while the page can be seen, and
// the page is loaded again. Without a stream, as while the platform is away, the page is loaded in growing intervals.

import { ApiError, at, events } from "./api.js";

const REFRESH_EVERY_S = { tenant: 1, platform: 3 }; // at most, however much changes
const [RETRY_S, RETRY_MOST_S] = [1, 15];

/** Stream → the id of its last event, with which another page goes on. @type {Map<string, string>} */
const seen = new Map();

/**
 * Call `refresh` when something may have changed, until the signal is aborted.
 *
 * @param {{tenant?: string, topics: string[], everyS?: () => number | undefined, signal: AbortSignal, refresh: () => Promise<void>,
 *   noticed: (message: string) => void}} options
 *   tenant: whose changes; without one those of the platform; topics: refresh after changes of these; everyS: refresh
 *   after so many seconds in any case; noticed: tells whether the platform is away ("": it is there).
 */
export async function follow({ tenant, topics, everyS, signal, refresh, noticed }) {
  const left = new AbortController();
  const isOver = AbortSignal.any([signal, left.signal]);
  const bell = new Bell();
  if (topics.length) listen(tenant ? at("tenants", tenant, "events") : "platform/events", topics, bell, isOver);
  let retryS = 0;
  try {
    while (!signal.aborted) {
      await bell.rung(retryS || everyS?.(), isOver);
      await visible(isOver);
      if (signal.aborted) return;
      try {
        await refresh();
        if (retryS) noticed("");
        retryS = 0;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof ApiError && error.mayPass)) throw error;
        retryS = longer(retryS);
        noticed("The platform does not answer; what is shown is older. The page tries again.");
      }
      await slept(REFRESH_EVERY_S[tenant ? "tenant" : "platform"], isOver);
    }
  } finally {
    left.abort();
  }
}

/**
 * Ring when something changed, and when that can't be known: the page is loaded again then, and learns why. A refusal ends
 * the page.
 *
 * @param {string} path @param {string[]} topics @param {Bell} bell @param {AbortSignal} signal
 */
async function listen(path, topics, bell, signal) {
  let retryS = 0;
  while (!signal.aborted) {
    await visible(signal);
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    const isFirst = !seen.has(path); // the page was loaded before it listened
    try {
      for await (const event of events(path, seen.get(path), AbortSignal.any([signal, hidden.signal]))) {
        retryS = 0;
        seen.set(path, event.id);
        const isNews = event.name === "changed" && topics.some((topic) => event.data.topics.includes(topic));
        if (isNews || (isFirst && event.name === "listening")) bell.ring();
      }
    } catch (error) {
      if (error instanceof ApiError && !error.mayPass) return bell.fail(error);
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (signal.aborted || hidden.signal.aborted) continue;
    bell.ring();
    retryS = longer(retryS);
    await slept(retryS, signal);
  }
}

/** Wakes whoever waits for it; one that rang before is not missed. */
class Bell {
  #hasRung = false;
  #wake = () => {};
  /** @type {Error | undefined} */
  #error;

  ring() {
    this.#hasRung = true;
    this.#wake();
  }

  /** @param {Error} error What whoever waits shall throw. */
  fail(error) {
    this.#error = error;
    this.ring();
  }

  /** Until it rings, or so many seconds are over. @param {number | undefined} seconds @param {AbortSignal} signal */
  async rung(seconds, signal) {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    if (!this.#hasRung) await slept(seconds ?? Infinity, signal, woken.signal);
    this.#hasRung = false;
    if (this.#error && !signal.aborted) throw this.#error;
  }
}

/** @param {number} seconds */
const longer = (seconds) => Math.min(1.5 * seconds || RETRY_S, RETRY_MOST_S);

/** Wait, unless one of the signals is aborted. @param {number} seconds @param {AbortSignal[]} signals @returns {Promise<void>} */
function slept(seconds, ...signals) {
  const ended = AbortSignal.any(signals);
  return new Promise((resolve) => {
    const done = () => (clearTimeout(timer), ended.removeEventListener("abort", done), resolve());
    const timer = Number.isFinite(seconds) ? setTimeout(done, 1000 * seconds) : undefined;
    if (ended.aborted) done();
    else ended.addEventListener("abort", done);
  });
}

/** Until the page can be seen. @param {AbortSignal} signal */
async function visible(signal) {
  while (document.hidden && !signal.aborted) {
    const changed = new AbortController();
    document.addEventListener("visibilitychange", () => changed.abort(), { once: true });
    await slept(Infinity, signal, changed.signal);
  }
}
