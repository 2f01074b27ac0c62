// Fields of forms and dialogs. What is no number is left to the API, which says so.

import { html } from "../core/html.js";

/**
 * A field of one line.
 *
 * @param {string} name @param {string} label @param {string | number | null} [value]
 * @param {ReturnType<typeof html>} [more] Further attributes.
 */
export const field = (name, label, value = "", more = html``) =>
  html`<label class="field"
    ><span>${label}</span> <input name="${name}" value="${value}" ${more} autocomplete="off" spellcheck="false"
  /></label>`;

/** One that has to be filled in. @param {string} name @param {string} label @param {string | number | null} [value] */
export const textField = (name, label, value) => field(name, label, value, html`required`);

/** @param {string} name @param {string} label @param {string | number | null} [value] */
export const numberField = (name, label, value) => field(name, label, value, html`inputmode="decimal"`);

/** What the fields of a form say; of several with one name the last. @param {HTMLElement} form @returns {Record<string, any>} */
export const fieldsOf = (form) => Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (form)));

/** @param {string} name @param {string} label @param {unknown} options @param {boolean} [isMultiple] */
export const selectField = (name, label, options, isMultiple = false) =>
  html`<div class="field">
    <label for="choose-${name}">${label}</label>
    <select id="choose-${name}" name="${name}" ${isMultiple && html`multiple size="5"`}>
      ${options}
    </select>
  </div>`;

/** A number as it was typed; null where nothing was. @param {string} [typed] */
export function numberOf(typed = "") {
  const text = typed.trim();
  if (text === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

/** Fields for numbers. @param {Record<string, string>} labels Name → label. @param {Record<string, any>} values */
export const numberFields = (labels, values) =>
  Object.entries(labels).map(([name, label]) => numberField(name, label, values[name]));

/** What was typed into them. @param {Record<string, string>} labels @param {Record<string, string>} typed */
export const numbersOf = (labels, typed) =>
  Object.fromEntries(Object.keys(labels).map((name) => [name, numberOf(typed[name])]));
