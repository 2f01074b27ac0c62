// The datasets of a tenant as a list to search; which columns it has is up to the page.

import { ask, at } from "../core/api.js";
import { filter } from "../core/router.js";

/** @param {string} tenant @param {string | undefined} text What is searched. @param {AbortSignal} signal */
export const datasetsOf = (tenant, text, signal) => ({
  label: "Datasets",
  search: "Search datasets",
  text,
  searched: (/** @type {string} */ typed) => filter({ q: typed }),
  key: (/** @type {any} */ dataset) => dataset.dataset_id,
  load: (/** @type {any} */ { text: name, ...of }) =>
    ask("GET", at("tenants", tenant, "datasets"), { query: { ...of, name }, signal }),
});
