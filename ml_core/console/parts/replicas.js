// Which live replicas have loaded a version, and why others could not.

import { ApiError } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { problem } from "./states.js";

/** @param {any[] | ApiError} replicas Of an environment. @param {string} [only] Failures of this version only. */
export function replicasView(replicas, only) {
  if (replicas instanceof ApiError) return problem(replicas);
  if (!replicas.length) return html`<p class="quiet">No replica is live.</p>`;
  const loaded = replicas.filter(({ state }) => state === "loaded").length;
  const failed = replicas.filter(({ state, version }) => state === "failed" && (!only || version === only));
  return html`<p class="quiet">
      ${loaded} of ${counted(replicas.length, "live replica")} ${loaded === 1 ? "has" : "have"} loaded it.
    </p>
    ${failed.map(
      ({ replica_id: id, version, serves, reason }) =>
        html`<p class="problem">
          Replica ${id} could not load version ${version}: ${reason} ${meanwhileText(serves)}
        </p>`,
    )}`;
}

/** @param {string | null} serves What a replica answers with while it has not loaded what it should. */
export const meanwhileText = (serves) =>
  serves ? `Version ${serves} answers meanwhile.` : "Requests are refused meanwhile.";
