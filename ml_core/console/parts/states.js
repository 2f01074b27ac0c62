// What stands in the place of content: it is on its way, there is none, or the API refused it, in the API's own words.

import { ApiError } from "../core/api.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";

/** @param {string} title */
export const loading = (title) =>
  html`<h1 tabindex="-1">${title}</h1>
    <p class="state" aria-busy="true">Loading…</p>`;

/** @param {unknown} text What to do about it. */
export const empty = (text) => html`<p class="state">${text}</p>`;

/** @param {string} message @param {string} address */
export const missing = (message, address) =>
  html`<h1 tabindex="-1">Not found</h1>
    <p class="state">${message} <a href="${address}">Go to the beginning.</a></p>`;

const HEADINGS = /** @type {Record<number, string>} */ ({
  0: "The platform is away",
  403: "You may not see this",
  404: "Not found",
  503: "Not available now",
});

/** A page that can't be shown. @param {unknown} error */
export function failed(error) {
  const status = error instanceof ApiError ? error.status : -1;
  return html`<h1 tabindex="-1">${HEADINGS[status] ?? "This can't be shown"}</h1>
    ${problem(error)}
    <p><a href="#/">Go to the beginning.</a></p>`;
}

/** An error in a page: message, the operation that mends it, and the request's id. @param {unknown} error */
export function problem(error) {
  if (!(error instanceof ApiError)) {
    console.error(error);
    return html`<p class="problem" role="alert">
      The console failed: ${error instanceof Error ? error.message : error}
    </p>`;
  }
  const { action } = error;
  const given = action && Object.entries(action.arguments).map(([name, value]) => `${name}=${value}`);
  return html`<div class="problem" role="alert">
    <p>${error.message}</p>
    ${action && html`<p>The operation that mends it: <code>${action.operation}${given?.length ? ` ${given.join(" ")}` : ""}</code></p>`}
    ${error.requestId && html`<p class="quiet">Request ${error.requestId}</p>`}
  </div>`;
}

/**
 * An error of a part of a page that the API refused, so that the others are shown; another error is thrown.
 *
 * @param {unknown} error
 */
export function refusal(error) {
  if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 401) return error;
  throw error;
}

const TONES = /** @type {Record<string, string>} */ ({
  ...Object.fromEntries(
    ["running", "succeeded", "finished", "best", "ok", "stable", "loaded", "passed", "active"].map((word) => [
      word,
      "good",
    ]),
  ),
  ...Object.fromEntries(["degraded", "failed", "dead", "alert", "not passed", "stopped"].map((word) => [word, "bad"])),
  ...Object.fromEntries(
    ["canary", "starting", "cancelling", "loading", "behind", "protected", "paused"].map((word) => [word, "busy"]),
  ),
});

/** A state as a word; its colour only repeats it. @param {string} word @param {string} [text] */
export const badge = (word, text = word) => html`<span class="badge ${TONES[word] ?? "plain"}">${text}</span>`;

/** Shows a list with what is archived, or without. @param {string[]} names Of the page. @param {Record<string, string>} query */
export const archivedLink = (names, { archived, ...query }) =>
  html`<p>
    <a href="${link(names, { ...query, archived: archived ? undefined : "yes" })}"
      >${archived ? "Leave out what is archived" : "Show what is archived, too"}</a
    >
  </p>`;

/**
 * A button that says why it can't be used. It stays focusable, so that the reason can be read.
 *
 * @param {{action: string, text: unknown, refused?: string | null, style?: string, data?: Record<string, string>}} options
 */
export function button({ action, text, refused, style = "", data = {} }) {
  const named = Object.entries(data).map(([name, value]) => html` data-${name}="${value}"`);
  return html`<button
    type="button"
    class="${style}"
    data-action="${action}"
    ${named}
    ${refused && html`aria-disabled="true" title="${refused}"`}
  >
    ${text}
  </button>`;
}
