// The moves of an environment: each dialog says what will be served before and after, evaluates the gates first, carries the
// generation that was seen, and says who moved it meanwhile.

import { ApiError, ask, at } from "../core/api.js";
import { words } from "../core/format.js";
import { html } from "../core/html.js";
import { openDialog, reasonField } from "./dialog.js";
import { field } from "./fields.js";
import { badge, problem } from "./states.js";
import { facts } from "./table.js";
import { versionField } from "./type_ahead.js";

/** @typedef {{environment: string, is_protected: boolean}} Policy */
/** @typedef {{model_id: string, environment: string, version: string | null, generation: number,
 *   canary: {version: string, percent: number} | null, shadow: string | null, updated_by: string, updated_at: string}} Pointer */
/** @typedef {{stable: string | null, canary: {version: string, percent: number} | null, shadow: string | null}} Served */
/**
 * @typedef {object} Choice What somebody chose in the dialog.
 * @property {string} version
 * @property {number} percent
 * @property {string | null} [before] The version that a rollback would bring back; undefined: it is not known yet.
 */
/**
 * @typedef {object} Move
 * @property {string} path Of the operation, below the environment.
 * @property {string} label Of its button.
 * @property {(now: Served) => boolean} isPossible As the state machine of rollouts says.
 * @property {(now: Served, choice: Choice) => Served} after What is served then.
 * @property {(choice: Choice) => Record<string, unknown>} [body]
 * @property {boolean} [choosesVersion]
 * @property {boolean} [choosesPercent]
 * @property {boolean} [choosesSticky]
 * @property {(now: Served, choice: Choice) => string} [gated] The version that the gates are evaluated for.
 * @property {boolean} [isDestructive] Whether an environment loses what it serves.
 */

const isPlain = (now) => now.canary === null;

/** @type {Record<string, Move>} */
export const MOVES = {
  promote: {
    path: "promote",
    label: "Promote",
    choosesVersion: true,
    isPossible: isPlain,
    after: (_, { version }) => ({ stable: version, canary: null, shadow: null }),
    body: ({ version }) => ({ version }),
    gated: (_, { version }) => version,
  },
  canary: {
    path: "canary",
    label: "Start canary",
    choosesVersion: true,
    choosesPercent: true,
    choosesSticky: true,
    isPossible: (now) => now.stable !== null && isPlain(now),
    after: (now, { version, percent }) => ({ ...now, canary: { version, percent } }),
    body: ({ version, percent }) => ({ version, percent }),
    gated: (_, { version }) => version,
  },
  step: {
    path: "canary/step",
    label: "Change share",
    choosesPercent: true,
    isPossible: (now) => now.canary !== null,
    after: (now, { percent }) => ({ ...now, canary: now.canary && { ...now.canary, percent } }),
    body: ({ percent }) => ({ percent }),
  },
  finish: {
    path: "canary/finish",
    label: "Finish canary",
    isPossible: (now) => now.canary !== null,
    after: (now) => ({ ...now, stable: now.canary?.version ?? now.stable, canary: null }),
    gated: (now) => now.canary?.version ?? "",
  },
  abort: {
    path: "canary/abort",
    label: "Abort canary",
    isDestructive: true,
    isPossible: (now) => now.canary !== null,
    after: (now) => ({ ...now, canary: null }),
  },
  shadow: {
    path: "shadow",
    label: "Start shadow",
    choosesVersion: true,
    isPossible: (now) => now.stable !== null && now.shadow === null,
    after: (now, { version }) => ({ ...now, shadow: version }),
    body: ({ version }) => ({ version }),
  },
  unshadow: {
    path: "shadow/stop",
    label: "Stop shadow",
    isPossible: (now) => now.shadow !== null,
    after: (now) => ({ ...now, shadow: null }),
  },
  rollback: {
    path: "rollback",
    label: "Roll back",
    isDestructive: true,
    isPossible: isPlain,
    after: (_, { before }) => ({ stable: before === undefined ? "…" : before, canary: null, shadow: null }),
  },
  withdraw: {
    path: "withdraw",
    label: "Withdraw",
    isDestructive: true,
    isPossible: (now) => now.stable !== null,
    after: () => ({ stable: null, canary: null, shadow: null }),
  },
};

/**
 * The version that a rollback brings back: the last other one before the present one was first served.
 *
 * @param {{generation: number, restored_generation: number, version: string | null}[]} moves Newest first.
 * @param {string | null} version The present one.
 */
function restored(moves, version) {
  let upTo = Infinity;
  for (const move of moves) {
    if (move.generation > upTo) continue;
    if (move.version && move.version !== version) return move.version;
    if (move.restored_generation < move.generation) upTo = move.restored_generation - 1; // a rollback
  }
  return null;
}

/**
 * As `restored`, from as much of the history as that takes.
 *
 * @param {string} root The path of the environment. @param {string | null} version
 */
async function versionBefore(root, version) {
  const moves = [];
  let cursor;
  do {
    const page = await ask("GET", `${root}/moves`, { query: { limit: 100, cursor } });
    moves.push(...page.items);
    const found = restored(moves, version);
    if (found) return found;
    cursor = page.next_cursor;
  } while (cursor);
  return null;
}

/** What an environment serves. @param {Pointer | null} pointer @returns {Served} */
export const servedBy = (pointer) => ({
  stable: pointer?.version ?? null,
  canary: pointer?.canary ?? null,
  shadow: pointer?.shadow ?? null,
});

/** @param {Served} served */
export const servedText = ({ stable, canary, shadow }) =>
  html`${stable ? html`version <b>${stable}</b>` : "nothing"}${
    canary && html`, of which the canary <b>${canary.version}</b> answers ${canary.percent}\u00a0%`
  }${shadow && html`, with the shadow <b>${shadow}</b>`}`;

/**
 * Open the dialog of a move.
 *
 * @param {object} options
 * @param {string} options.name Of `MOVES`.
 * @param {string} options.tenant
 * @param {string} options.model
 * @param {string} options.environment
 * @param {Pointer | null} options.pointer What was seen; null: nothing was ever promoted.
 * @param {string[]} options.versions The newest ones; any can be chosen.
 * @param {boolean} options.mayOverride
 * @param {(pointer: Pointer) => Promise<void>} options.done
 */
export function openMove({ name, tenant, model, environment, pointer, versions, mayOverride, done }) {
  const move = MOVES[name];
  const root = at("tenants", tenant, "models", model, "environments", environment);
  let seen = pointer;
  /** @type {Choice} */
  const choice = {
    version: versions.find((each) => each !== seen?.version) ?? versions[0],
    percent: seen?.canary?.percent ?? 10,
    before: undefined,
  };
  /** @type {any[] | undefined} */
  let gates;
  /** @type {unknown} */
  let lookError;
  /** @type {Pointer | undefined} */
  let movedMeanwhile;

  const judged = () => move.gated?.(servedBy(seen), choice);

  /** Ask what the gates find, or where a rollback leads. @param {() => void} redraw */
  async function look(redraw) {
    const version = judged();
    [gates, lookError, choice.before] = [undefined, undefined, undefined];
    try {
      if (name === "rollback") choice.before = await versionBefore(root, seen?.version ?? null);
      if (!version) return;
      const found = await ask("GET", `${root}/evaluation`, { query: { version } });
      if (judged() === version) gates = found;
    } catch (error) {
      if (judged() === version) lookError = error;
    } finally {
      redraw();
    }
  }

  const fails = () => gates?.some((gate) => !gate.passed) ?? false;

  const content = () => {
    const now = servedBy(seen);
    const named = move.choosesVersion ? ` version ${choice.version}` : "";
    const refused =
      (!move.isPossible(now) && `It is not possible while ${environment} serves this.`) ||
      (name === "rollback" && choice.before === null && `${environment} served no other version before.`) ||
      (name === "rollback" && !choice.before && !lookError && "The history is being read.") ||
      (move.gated && !gates && !lookError && "The gates are being evaluated.") ||
      (fails() && !mayOverride && "A gate does not pass. Only a key with the scope admin may override it.") ||
      null;
    return {
      title: `${move.label}${named}: ${environment} of ${model}`,
      submit: fails() && mayOverride ? `${move.label}${named} despite the gates` : `${move.label}${named}`,
      isDestructive: move.isDestructive || fails(),
      refused,
      body: html` ${movedMeanwhile && conflictView(movedMeanwhile)}
        ${move.choosesVersion && versionField(at("tenants", tenant, "models", model), choice.version)}
        ${move.choosesPercent && percentField(choice.percent)}
        ${move.choosesSticky && field("sticky", "Column whose equal values get the same version")}
        ${facts(
          [
            ["Now", servedText(now)],
            ["Then", servedText(move.after(now, choice))],
            ["Generation", `${seen?.generation ?? 0} → ${(seen?.generation ?? 0) + 1}`],
          ],
          "plan",
        )}
        ${move.gated ? gatesView(gates, lookError) : lookError && problem(lookError)}
        ${fails() && mayOverride && reasonField({ name: "override", label: "Why it is done although a gate fails (kept in the history)", isRequired: true })}
        ${reasonField({ label: "Reason (kept in the history)" })}`,
    };
  };

  openDialog({
    content,
    opened: look,
    changed(control, redraw) {
      if (control.name === "version") {
        choice.version = control.value;
        look(redraw);
      } else if (control.name === "percent") choice.percent = Number(control.value);
      else return;
      redraw();
    },
    async submit({ reason, override, sticky }, redraw) {
      const body = { ...move.body?.(choice), reason, expected_generation: seen?.generation ?? 0 };
      if (move.gated && override) Object.assign(body, { override });
      if (sticky) Object.assign(body, { sticky });
      try {
        await done(await ask("POST", `${root}/${move.path}`, { body }));
      } catch (error) {
        if (error instanceof ApiError && error.code === "promotion_conflict") {
          movedMeanwhile = seen = await ask("GET", root);
          look(redraw);
        }
        throw error;
      }
    },
  });
}

/** @param {Pointer} pointer */
function conflictView({ updated_by: by, updated_at: moment, generation, environment, ...pointer }) {
  const served = servedBy(/** @type {any} */ (pointer));
  return html`<div class="problem" role="alert">
    <p>
      <b>${by}</b> moved ${environment} meanwhile, <when-time datetime="${moment}"></when-time>: it serves
      ${servedText(served)} now (generation ${generation}). You changed nothing. Check what will happen, and do it again
      or cancel.
    </p>
  </div>`;
}

/** @param {number} percent */
const percentField = (percent) =>
  html`<label class="field"
    ><span>Share of the requests: <output>${percent} %</output></span>
    <input type="range" name="percent" min="1" max="99" value="${percent}" aria-valuetext="${percent} percent"
  /></label>`;

/** What gates found. @param {any[] | undefined} gates @param {unknown} [error] */
export function gatesView(gates, error) {
  if (error) return problem(error);
  if (!gates) return html`<p class="quiet" aria-busy="true">The gates are being evaluated…</p>`;
  if (!gates.length) return html`<p class="quiet">The environment has no gates.</p>`;
  return html`<ul class="gates">
    ${gates.map(
      ({ name, kind, passed, message }) =>
        html`<li data-key="gate-${name}">
          ${badge(passed ? "passed" : "not passed")} <b>${name}</b> <span class="quiet">${words(kind)}</span> ${message}
        </li>`,
    )}
  </ul>`;
}
