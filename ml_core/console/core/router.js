// Every state of the console has an address: what is behind the # says which page, of what, and how it is filtered.

import { at } from "./api.js";

/** @typedef {{pattern: string, params: Record<string, string>, query: Record<string, string>}} Place */

/**
 * The address of a page.
 *
 * @param {(string | number)[]} names Its segments.
 * @param {Record<string, string | undefined>} [query]
 */
export function link(names, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  const search = given.length ? `?${new URLSearchParams(/** @type {any} */ (given))}` : "";
  return `#/${at(...names)}${search}`;
}

/**
 * Where an address leads.
 *
 * @param {string} hash
 * @param {string[]} patterns Such as `t/:tenant/models`.
 * @returns {Place | null} Null: to no page.
 */
export function placeOf(hash, patterns) {
  const [path, search = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const segments = path.split("/").filter(Boolean);
  if (segments.some((segment) => /^\.\.?$/.test(decoded(segment)))) return null; // a URL would resolve it
  const query = Object.fromEntries(new URLSearchParams(search));
  for (const pattern of patterns) {
    const wanted = pattern.split("/").filter(Boolean);
    if (wanted.length !== segments.length) continue;
    if (!wanted.every((name, index) => name.startsWith(":") || name === segments[index])) continue;
    const named = wanted.map((name, index) => [name.slice(1), decoded(segments[index]), name.startsWith(":")]);
    return { pattern, params: Object.fromEntries(named.filter((each) => each[2])), query };
  }
  return null;
}

/** @param {string} segment */
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment; // a percent sign that somebody typed
  }
}

/** The part of an address that says which page, without how it is filtered. @param {string} hash */
export const pageOf = (hash) => hash.split("?")[0];

/**
 * Keep something in the query of the present address, without a new entry in the browser's history. The page shows it already.
 *
 * @param {Record<string, string | undefined>} changes
 */
export const filter = (changes) => history.replaceState(null, "", changed(changes));

/**
 * Change the query of the present address, and so the page: what differs is replaced, focus and scroll stay.
 *
 * @param {Record<string, string | undefined>} changes
 */
export function turn(changes) {
  location.hash = changed(changes);
}

/** The present address with changes of its query. @param {Record<string, string | undefined>} changes */
function changed(changes) {
  const [path, search = ""] = location.hash.split(/\?(.*)/s);
  const query = new URLSearchParams(search);
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  const text = query.toString();
  return `${path || "#/"}${text && `?${text}`}`;
}
