// <try-it>: a form made from a version's signature; the answer with its probabilities, why, and the same as a command.

import { at, predict, predictionUrl } from "../core/api.js";
import { number, percent } from "../core/format.js";
import { html, render } from "../core/html.js";
import { bars } from "./bars.js";
import { badge, problem } from "./states.js";

const MOST_BARS = 12;

/** @typedef {{name: string, kind: string, nullable: boolean, categories: string[]}} Column */
/**
 * @typedef {object} Subject
 * @property {string} tenant
 * @property {string} model
 * @property {string} version
 * @property {Column[]} inputs
 * @property {string} output The kind of the prediction.
 * @property {Record<string, unknown>} example A row that the version accepts.
 * @property {unknown} refused Why it can't be tried with this session; null: it can.
 */

class TryIt extends HTMLElement {
  /** @type {Subject | undefined} */
  #subject;
  /** @type {{row: Record<string, unknown>, predicted?: any, explained?: any, errors: unknown[]} | undefined} */
  #answer;
  #isBusy = false;
  #copied = false;

  /** Shown once for each version, so that what is typed stays. @param {Subject} subject */
  set subject(subject) {
    if (this.#subject?.version === subject.version && this.#subject.model === subject.model) return;
    this.#subject = subject;
    this.#answer = undefined;
    this.#show();
  }

  connectedCallback() {
    this.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask(/** @type {HTMLFormElement} */ (event.target));
    });
    this.addEventListener("click", async (event) => {
      if (!(/** @type {Element} */ (event.target).closest(".copy"))) return;
      const shown = /** @type {HTMLElement} */ (this.querySelector(".command"));
      // Without TLS there is no clipboard; it is selected then, to be copied by hand.
      if (!navigator.clipboard) return getSelection()?.selectAllChildren(shown);
      await navigator.clipboard.writeText(shown.textContent ?? "");
      this.#copied = true;
      this.#show();
    });
  }

  /** @param {HTMLFormElement} form */
  async #ask(form) {
    const { tenant, model, version, inputs, refused } = /** @type {Subject} */ (this.#subject);
    if (refused || this.#isBusy) return;
    const row = rowOf(form, inputs);
    this.#answer = { row, errors: [] };
    [this.#isBusy, this.#copied] = [true, false];
    this.#show();
    const body = { rows: [row], version };
    const path = at(tenant, "models", model);
    const [predicted, explained] = await Promise.allSettled([
      predict(`${path}/predict`, { ...body, proba: true }),
      predict(`${path}/explain`, body),
    ]);
    const answer = { row, errors: /** @type {unknown[]} */ ([]) };
    if (predicted.status === "fulfilled") Object.assign(answer, { predicted: predicted.value });
    else answer.errors.push(predicted.reason);
    if (explained.status === "fulfilled") Object.assign(answer, { explained: explained.value });
    else if (predicted.status === "fulfilled") answer.errors.push(explained.reason);
    this.#answer = answer;
    this.#isBusy = false;
    this.#show();
  }

  #show() {
    const subject = /** @type {Subject} */ (this.#subject);
    const { inputs, example, refused } = subject;
    render(
      this,
      html`<div class="try">
        <form>
          ${inputs.map((column, index) => field(column, index, example[column.name]))}
          <div class="buttons">
            <button type="submit" class="primary" ${(refused || this.#isBusy) && html`aria-disabled="true"`}>
              Predict
            </button>
          </div>
          ${refused && html`<p class="quiet">${refused}</p>`}
        </form>
        <div class="answer" aria-live="polite" aria-busy="${this.#isBusy}">${this.#answerView(subject)}</div>
      </div>`,
    );
  }

  /** @param {Subject} subject */
  #answerView(subject) {
    if (!this.#answer) return html`<p class="state">Fill in a row and predict.</p>`;
    const { row, predicted, explained, errors } = this.#answer;
    return html` ${predicted && predictedView(predicted)} ${explained && explainedView(explained)}
      ${errors.map(problem)}
      <h3>The same as a command</h3>
      <pre class="command" tabindex="0">${command(subject, row)}</pre>
      <button type="button" class="copy">${this.#copied ? "Copied" : "Copy"}</button>`;
  }
}

/** @param {Column} column @param {number} index @param {unknown} example */
function field({ name, kind, nullable, categories }, index, example) {
  const value = example === null || example === undefined ? "" : String(example);
  const id = `try-${index}`;
  const needed = !nullable && kind !== "text" && kind !== "category" && html`required`;
  const hint = kind === "datetime" ? "2026-01-31T12:00:00" : nullable ? "missing" : "";
  const control =
    kind === "text"
      ? html`<textarea id="${id}" name="${index}" rows="2" placeholder="${hint}">${value}</textarea>`
      : kind === "boolean"
        ? html`<select id="${id}" name="${index}">
            ${[...(nullable ? [""] : []), "true", "false"].map(
              (each) => html`<option value="${each}" ${each === value && html`selected`}>${each || "missing"}</option>`,
            )}
          </select>`
        : html`<input
              id="${id}"
              name="${index}"
              value="${value}"
              placeholder="${hint}"
              ${needed}
              ${kind === "number" && html`inputmode="decimal"`}
              ${categories.length > 0 && html`list="${id}-seen"`}
              autocomplete="off"
              spellcheck="false"
            />
            ${categories.length > 0 && html`<datalist id="${id}-seen">${categories.slice(0, 100).map((each) => html`<option value="${each}"></option>`)}</datalist>`}`;
  return html`<div class="field">
    <label for="${id}">${name} <span class="quiet">${kind}${nullable && ", may be missing"}</span></label
    >${control}
  </div>`;
}

/** The row of a form: numbers and booleans as JSON has them, what is blank as null. @param {HTMLFormElement} form @param {Column[]} inputs */
function rowOf(form, inputs) {
  const fields = new FormData(form);
  const read = ({ kind }, text) => {
    if (text.trim() === "") return kind === "text" || kind === "category" ? (text === "" ? null : text) : null;
    if (kind === "boolean") return text === "true";
    return kind === "number" && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  return Object.fromEntries(
    inputs.map((column, index) => [column.name, read(column, String(fields.get(String(index)) ?? ""))]),
  );
}

/** @param {any} predicted */
function predictedView({ predictions: [prediction], probabilities, version, rollout }) {
  const classes = Object.entries(probabilities?.[0] ?? {})
    .sort(([, a], [, b]) => b - a)
    .slice(0, MOST_BARS);
  return html`<p class="prediction">
      <b>${typeof prediction === "number" ? number(prediction) : prediction}</b>
      <span class="quiet">version ${version}</span> ${rollout && badge(rollout)}
    </p>
    ${classes.length > 0 && bars(/** @type {[string, number][]} */ (classes), { label: "Probabilities", text: percent })}`;
}

/** @param {any} explained */
function explainedView({ explanations: [{ prediction, outputs, words }], unit, method }) {
  const output = outputs.find((each) => each.label === String(prediction)) ?? outputs[0];
  const parts = /** @type {[string, number][]} */ (Object.entries(output.contributions));
  const strongest = parts.sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)).slice(0, MOST_BARS);
  const spoken = Object.entries(words).flatMap(([column, found]) =>
    Object.entries(found).map(([word, by]) => [`${word} (${column})`, by]),
  );
  return html`<h3>Why</h3>
    <p class="quiet">
      What each column adds to the score ${output.label !== null && html`of ${output.label}`}, from
      ${number(output.base)} to ${number(output.score)} (${unit}, ${method}).
    </p>
    ${bars(strongest, { label: "Contributions of the columns", isSigned: true })}
    ${
      spoken.length > 0 &&
      html`<details>
        <summary>Words</summary>
        ${bars(/** @type {[string, number][]} */ (spoken), { label: "Contributions of words", isSigned: true })}
      </details>`
    }`;
}

/** The request as a line of a shell. @param {Subject} subject @param {Record<string, unknown>} row */
function command({ tenant, model, version }, row) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const body = JSON.stringify({ rows: [row], version, proba: true });
  const url = predictionUrl(`${at(tenant, "models", model)}/predict`);
  return `curl -s ${quoted(url)} \\\n  -H 'Authorization: Bearer mlk_…' \\\n  -d ${quoted(body)}`;
}

customElements.define("try-it", TryIt);
