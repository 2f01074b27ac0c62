// A dialog: the second step before something is changed. It names what it changes, and shows a refusal in the API's words.

import { html, render } from "../core/html.js";
import { fieldsOf, showBeside } from "./fields.js";
import { problem } from "./states.js";

/** @typedef {ReturnType<typeof html>} Html */
/**
 * @typedef {object} Content
 * @property {string} title Names the thing.
 * @property {Html} body
 * @property {string} submit What the button does.
 * @property {string | null} [refused] Why it can't be done now.
 * @property {boolean} [isDestructive]
 */

/**
 * Open a dialog; it is closed when `submit` has succeeded, and when its page is left.
 *
 * @param {object} options
 * @param {() => Content} options.content What it shows now.
 * @param {(fields: Record<string, string>, redraw: () => void, closed: AbortSignal) => Promise<void>} options.submit
 *   Gets its fields by name. An error is shown, and the dialog stays open.
 * @param {(field: HTMLInputElement, redraw: () => void) => void} [options.changed] Called when a field was changed.
 * @param {(redraw: () => void) => void} [options.opened]
 * @param {HTMLFormElement} [options.behind] A form of the page: it shows what is refused of its fields, and the dialog is closed.
 */
export function openDialog({ content, submit, changed, opened, behind }) {
  const { title } = content();
  // Somebody has clicked twice.
  if ([...document.querySelectorAll("dialog h2")].some((each) => each.textContent === title)) return;
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "dialog-title");
  const closed = new AbortController();
  let isBusy = false;
  /** @type {unknown} What was refused, unless a field has it. */
  let error;

  function redraw() {
    const { title, body, submit: text, refused, isDestructive } = content();
    render(
      dialog,
      html`<form method="dialog">
        <h2 id="dialog-title">${title}</h2>
        ${body}
        <div class="refusal" aria-live="assertive">
          ${error ? problem(error) : refused && html`<p class="quiet">${refused}</p>`}
        </div>
        <div class="buttons">
          <button type="button" data-close>Cancel</button>
          <button
            type="submit"
            class="${isDestructive ? "danger" : "primary"}"
            ${(isBusy || refused) && html`aria-disabled="true"`}
          >
            ${text}
          </button>
        </div>
      </form>`,
    );
  }

  /** Whether a field of the dialog has what was refused; else it is above the buttons. @param {HTMLFormElement} form */
  function isShownIn(form) {
    const refusal = error;
    error = undefined;
    redraw();
    if (showBeside(form, refusal)) return true;
    error = refusal;
    redraw();
    return false;
  }

  for (const left of ["hashchange", "signed-out"])
    addEventListener(left, () => dialog.close(), { signal: closed.signal });
  dialog.addEventListener("input", (event) => changed?.(/** @type {HTMLInputElement} */ (event.target), redraw));
  dialog.addEventListener("click", (event) => {
    if (/** @type {Element} */ (event.target).closest("[data-close]")) dialog.close();
  });
  dialog.addEventListener("close", () => {
    closed.abort();
    dialog.remove();
  });
  dialog.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy || content().refused) return;
    const fields = fieldsOf(/** @type {HTMLElement} */ (event.target));
    const form = /** @type {HTMLFormElement} */ (event.target);
    [isBusy, error] = [true, undefined];
    showBeside(form);
    redraw();
    try {
      await submit(fields, redraw, closed.signal);
      dialog.close();
    } catch (refusal) {
      error = refusal;
    }
    isBusy = false;
    if (!dialog.open) return;
    if (!isShownIn(form) && behind && showBeside(behind, error)) {
      dialog.close();
      showBeside(behind, error); // the focus goes there
    }
  });
  redraw();
  document.body.append(dialog);
  dialog.showModal();
  opened?.(redraw);
}

/** A field for a reason. @param {{name?: string, label: string, isRequired?: boolean}} options */
export const reasonField = ({ name = "reason", label, isRequired = false }) =>
  html`<label class="field"
    ><span>${label}</span>
    <textarea name="${name}" rows="2" maxlength="1000" ${isRequired && html`required`}></textarea>
  </label>`;
