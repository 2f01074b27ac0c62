// What is done to a thing in one step: a button for each, and a dialog that names the thing and says what happens.

import { ask } from "../core/api.js";
import { html } from "../core/html.js";
import { openDialog } from "./dialog.js";
import { field, pairsOf } from "./fields.js";
import { button } from "./states.js";

/** @typedef {import("../main.js").Context} Context */
/**
 * @typedef {object} Act
 * @property {string} label Of its button, such as “Delete”.
 * @property {string} of What it is done to, such as “version 3 of tickets”.
 * @property {string | null} refused Why it may not be done.
 * @property {unknown} what It does.
 * @property {(fields: Record<string, string>) => Promise<any>} run
 * @property {unknown} [fields] Of its dialog.
 * @property {string} [typed] A name that has to be typed before.
 * @property {boolean} [isDestructive]
 * @property {(answer: any) => string} [said] What is said when it is done.
 * @property {string} [next] The address that is shown afterwards, if this page has nothing to show any more.
 */

/**
 * Archiving a thing, or restoring it once it is archived.
 *
 * @param {string} root Its path. @param {boolean} isArchived
 * @param {{of: string, refused: string | null, archives: string, restores: string, next?: string}} words What each does, and as in `Act`.
 * @returns {{archive: Act | false, restore: Act | false}}
 */
export function archiving(root, isArchived, { of, refused, archives, restores, next }) {
  const act = (label, verb, what) => ({ label, of, refused, what, run: () => ask("POST", `${root}/${verb}`) });
  return {
    archive: !isArchived && { ...act("Archive", "archive", archives), next },
    restore: isArchived && act("Restore", "restore", restores),
  };
}

/** Their buttons, and why they can't be used. @param {string} label Of the group. @param {Record<string, Act | false>} acts */
export function actsView(label, acts) {
  const offered = /** @type {[string, Act][]} */ (Object.entries(acts).filter(([, act]) => act));
  const reasons = [...new Set(offered.map(([, { refused }]) => refused))].filter(Boolean);
  return html`<div class="buttons" role="group" aria-label="${label}">
      ${offered.map(([name, act]) => actButton(name, act))}
    </div>
    ${reasons.map((reason) => html`<p class="quiet">${reason}</p>`)}`;
}

/** @param {string} act @param {Act} of */
export const actButton = (act, { label, refused, isDestructive }) =>
  button({ action: "act", text: `${label}…`, refused, style: isDestructive ? "danger" : "", data: { act } });

/**
 * The action `act` of a page: opens the dialog of the button's act.
 *
 * @param {(data: any, context: Context) => Record<string, Act | false>} actsOf
 * @returns {(element: HTMLElement, data: any, context: Context) => void}
 */
export const acting = (actsOf) => (element, data, context) => {
  const act = actsOf(data, context)[element.getAttribute("data-act") ?? ""];
  if (act) openAct(act, context);
};

/** @param {Act} act @param {Context} context */
function openAct({ label, of, what, run, fields, typed, isDestructive, said, next }, { refresh, say }) {
  openDialog({
    content: () => ({
      title: `${label}: ${of}`,
      submit: `${label} ${of}`,
      isDestructive,
      body: html`<p>${what}</p>
        ${fields} ${typed && field("typed", `Type ${typed}`, "", html`required pattern="${typed}" title="${typed}"`)}`,
    }),
    async submit(given) {
      const answer = await run(given);
      if (next) location.hash = next;
      else await refresh();
      say(said?.(answer) ?? `${label}: ${of}. Done.`);
    },
  });
}

/** Tags as lines of a field. @param {Record<string, string>} tags */
export const tagLines = (tags) =>
  Object.entries(tags)
    .map(([name, value]) => `${name}=${value}`)
    .join("\n");

/** What changes when the lines of a field take the place of tags; null removes one. @param {Record<string, string>} before @param {string} text */
export function tagChanges(before, text) {
  const wanted = pairsOf("tags", text, String) ?? {};
  const removed = Object.keys(before).filter((name) => !(name in wanted));
  return { ...Object.fromEntries(removed.map((name) => [name, null])), ...wanted };
}
