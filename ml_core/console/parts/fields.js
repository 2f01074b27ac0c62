// Fields of forms and dialogs. What is no number is left to the API, which says so, and is quoted beside the field.

import { ApiError } from "../core/api.js";
import { html, render } from "../core/html.js";
import { problem } from "./states.js";

/** Where a refusal is shown: of the field before it; without a name, of the whole form. @param {string} [name] */
export const problemSlot = (name = "") => html`<field-problem data-of="${name}"></field-problem>`;

/**
 * A field of one line.
 *
 * @param {string} name @param {string} label @param {string | number | null} [value]
 * @param {ReturnType<typeof html>} [more] Further attributes.
 */
export const field = (name, label, value = "", more = html``) =>
  html`<label class="field"
      ><span>${label}</span>
      <input name="${name}" value="${value}" ${more} autocomplete="off" spellcheck="false" /></label
    >${problemSlot(name)}`;

/** One that has to be filled in. @param {string} name @param {string} label @param {string | number | null} [value] */
export const textField = (name, label, value) => field(name, label, value, html`required`);

/** @param {string} name @param {string} label @param {string | number | null} [value] */
export const numberField = (name, label, value) => field(name, label, value, html`inputmode="decimal"`);

/** A field of lines, each name=value. @param {string} name @param {string} label @param {string} [value] @param {string} [example] */
export const linesField = (name, label, value = "", example = "") =>
  html`<label class="field"
      ><span>${label}, one a line</span>
      <textarea name="${name}" rows="3" placeholder="${example}" spellcheck="false" data-lines>
${value}</textarea></label
    >${problemSlot(name)}`;

/** A field of names. @param {string} name @param {string} label */
export const namesField = (name, label) =>
  html`<label class="field"
      ><span>${label}, one a line</span>
      <textarea name="${name}" rows="3" spellcheck="false" required></textarea></label
    >${problemSlot(name)}`;

/** @param {string} name @param {string} label @param {unknown} options @param {boolean} [isMultiple] */
export const selectField = (name, label, options, isMultiple = false) =>
  html`<div class="field">
      <label for="choose-${name}">${label}</label>
      <select id="choose-${name}" name="${name}" ${isMultiple && html`multiple size="5"`}>
        ${options}
      </select>
    </div>
    ${problemSlot(name)}`;

/**
 * One of some values, or none of them.
 *
 * @param {string} name @param {string} label @param {string[]} values
 * @param {{none?: string, chosen?: string}} [options]
 */
export const choiceField = (name, label, values, { none = "no", chosen } = {}) =>
  selectField(
    name,
    label,
    html`<option value="">${none}</option>
      ${values.map(
        (value) =>
          html`<option data-key="${value}" value="${value}" ${value === chosen && html`selected`}>${value}</option>`,
      )}`,
  );

/** Yes or no. @param {string} name @param {string} label @param {boolean} isTicked */
export const tickField = (name, label, isTicked) =>
  html`<label class="choice"><input type="checkbox" name="${name}" ${isTicked && html`checked`} /> ${label}</label
    >${problemSlot(name)}`;

/** What the fields of a form say; of several with one name the last. @param {HTMLElement} form @returns {Record<string, any>} */
export const fieldsOf = (form) => Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (form)));

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

/**
 * What a form says as the API takes it: numbers, lists, objects of lines; what is empty is left out.
 *
 * @param {HTMLFormElement} form
 * @returns {Record<string, any>}
 * @throws {ApiError} A line is not name=value.
 */
export function valuesOf(form) {
  const named = controlsOf(form).map((control) => [control.name, valueOf(control)]);
  const isGiven = (value) => ![null, ""].includes(value) && !(Array.isArray(value) && !value.length);
  return Object.fromEntries(named.filter(([, value]) => isGiven(value)));
}

/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Control */

/** @param {HTMLFormElement} form @returns {Control[]} */
const controlsOf = (form) =>
  /** @type {Control[]} */ ([...form.elements].filter((each) => /** @type {Control} */ (each).name));

/** @param {Control} control */
function valueOf(control) {
  if (control.matches("[type=checkbox]")) return /** @type {HTMLInputElement} */ (control).checked;
  if (control instanceof HTMLSelectElement && control.multiple)
    return [...control.selectedOptions].map(({ value }) => value);
  if (control.matches("[data-lines]")) return pairsOf(control.name, control.value);
  return control.inputMode === "decimal" ? numberOf(control.value) : control.value.trim();
}

/**
 * Lines of name=value.
 *
 * @param {string} name Of the field. @param {string} text
 * @param {(value: string) => unknown} [read] What a value is: JSON, or else a text.
 * @returns {Record<string, any> | null}
 */
export function pairsOf(name, text, read = jsonOrText) {
  const lines = text.split("\n").filter((line) => line.trim());
  const pairs = lines.map((line) => {
    const [, key, value] = line.match(/^\s*([^=\s]+)\s*=\s*(.*?)\s*$/) ?? [];
    const message = `“${line}” is not name=value.`;
    if (!key) throw new ApiError(400, { code: "invalid_request", message, details: { field: name } });
    return [key, read(value)];
  });
  return pairs.length ? Object.fromEntries(pairs) : null;
}

/** @param {string} value */
function jsonOrText(value) {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/**
 * Show a refusal of the API beside the field that it names, and nothing beside the others.
 *
 * @param {HTMLFormElement} form
 * @param {unknown} [error] Undefined: nothing is refused any more.
 * @returns {boolean} Whether it names one of the form.
 */
export function showBeside(form, error) {
  for (const slot of form.querySelectorAll("field-problem")) render(slot, html``);
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  if (!(error instanceof ApiError)) return false;
  // Such as `training.hyperparameters.C` or `model_id`: of the innermost name that is a field here.
  const names = String(error.details.field ?? "")
    .split(/[.[\]]+/)
    .flatMap((name) => [name.replace(/_id$/, ""), name])
    .reverse();
  const control =
    names.map((name) => controlsOf(form).find((each) => each.name === name)).find(Boolean) ??
    controlsOf(form).find((each) => each.value && each.value === error.details.value); // of a name that is none
  const slot = control && form.querySelector(`field-problem[data-of="${control.name}"]`);
  if (!slot) return false;
  render(slot, problem(error));
  const details = slot.closest("details");
  if (details) details.open = true;
  const shown = control.type === "hidden" ? control.parentElement?.querySelector("input") : control;
  shown?.setAttribute("aria-invalid", "true");
  shown?.focus();
  return true;
}

/** Show a refusal beside its field, or above the buttons of the form. @param {HTMLFormElement} form @param {unknown} error */
export function showRefusal(form, error) {
  if (showBeside(form, error)) return;
  const slot = form.querySelector('field-problem[data-of=""]');
  if (!slot) throw error;
  render(slot, problem(error));
  slot.scrollIntoView({ block: "nearest" });
}
