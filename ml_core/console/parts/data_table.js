// <data-table>: a list of the API, a page at a time, with a search where the list has one. A page calls `showList`.

import { html, render } from "../core/html.js";
import { empty, problem } from "./states.js";

const PAGE = 50;
const MOST = 1000;
const TYPED_S = 0.2;

/** @typedef {ReturnType<typeof html>} Html */
/** @typedef {{name: string, isNumber?: boolean, cell: (item: any) => Html | string | number}} Column */
/**
 * @typedef {object} Source
 * @property {string} label What is listed, for screen readers.
 * @property {Column[] | ((items: any[]) => Column[])} columns Those of any list, or of these items.
 * @property {(item: any) => string} key
 * @property {(query: {limit: number, cursor?: string, text: string}) => Promise<{items: any[], next_cursor: string | null}>} load
 * @property {Html | string} none What to do where there is nothing.
 * @property {string} [search] The label of the search.
 * @property {string} [text] What is searched for.
 * @property {(text: string) => void} [searched] Called with what somebody searches for, to keep it in the address.
 */

class DataTable extends HTMLElement {
  /** @type {Source | undefined} */
  #source;
  /** @type {any[]} */
  #items = [];
  /** @type {string | null | undefined} */
  #cursor;
  #text = "";
  #asked = 0;
  /** @type {unknown} */
  #error;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #typing;

  connectedCallback() {
    this.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(), 1000 * TYPED_S);
    });
    this.addEventListener("click", (event) => {
      if (/** @type {Element} */ (event.target).closest(".more")) this.#load(PAGE, this.#cursor ?? undefined);
    });
  }

  /** Show a list, or the same list again: then as many rows as before are read. @param {Source} source */
  set source(source) {
    if (!this.#source) this.#text = source.text ?? "";
    this.#source = source;
    this.#load(Math.min(MOST, Math.max(PAGE, this.#items.length)));
  }

  #search() {
    const text = this.querySelector("input")?.value.trim() ?? "";
    if (text === this.#text) return;
    this.#text = text;
    this.#source?.searched?.(text);
    this.#load(PAGE);
  }

  /** @param {number} limit @param {string} [cursor] */
  async #load(limit, cursor) {
    const source = /** @type {Source} */ (this.#source);
    const asked = ++this.#asked; // an answer that was overtaken is not shown
    try {
      const page = await source.load({ limit, cursor, text: this.#text });
      if (asked !== this.#asked) return;
      this.#items = cursor ? [...this.#items, ...page.items] : page.items;
      this.#cursor = page.next_cursor;
      this.#error = undefined;
    } catch (error) {
      const isLeft = error instanceof DOMException && error.name === "AbortError"; // the page was
      if (asked !== this.#asked || !this.isConnected || isLeft) return;
      this.#error = error;
    }
    this.#show(source);
  }

  /** @param {Source} source */
  #show(source) {
    render(
      this,
      html`${
        source.search &&
        html`<label class="search"
          ><span>${source.search}</span>
          <input type="search" value="${this.#text}" autocomplete="off" spellcheck="false"
        /></label>`
      }
      ${this.#error ? problem(this.#error) : this.#items.length ? this.#table(source) : this.#nothing(source)}`,
    );
  }

  /** @param {Source} source */
  #nothing(source) {
    return this.#text ? empty(`Nothing has “${this.#text}” in its name.`) : empty(source.none);
  }

  /** @param {Source} source */
  #table({ label, columns: given, key }) {
    const columns = typeof given === "function" ? given(this.#items) : given;
    const style = (column) => (column.isNumber ? "number" : "");
    return html`<div class="scroll" role="region" tabindex="0" aria-label="${label}">
        <table>
          <thead>
            <tr>
              ${columns.map((column) => html`<th scope="col" class="${style(column)}">${column.name}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${this.#items.map(
              (item) =>
                html`<tr data-key="${key(item)}">
                  ${columns.map((column) => html`<td class="${style(column)}">${column.cell(item)}</td>`)}
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
      ${
        this.#cursor &&
        html`<p class="pager">
          <span>The first ${this.#items.length} are shown.</span> <button type="button" class="more">Show more</button>
        </p>`
      }`;
  }
}

customElements.define("data-table", DataTable);

/**
 * Show a list in a page's `<data-table>`; of several, in that of this selector.
 *
 * @param {HTMLElement} main
 * @param {Source} source
 * @param {string} [selector]
 */
export function showList(main, source, selector = "data-table") {
  Object.assign(main.querySelector(selector) ?? {}, { source });
}

/**
 * A list that a page has already, as a table reads it: a page at a time, those with a text in their name.
 *
 * @template T
 * @param {T[]} items @param {(item: T) => string} name
 */
export function listed(items, name) {
  return async ({ limit, cursor = "0", text }) => {
    const wanted = items.filter((item) => name(item).toLowerCase().includes(text.toLowerCase()));
    const end = Number(cursor) + limit;
    return { items: wanted.slice(Number(cursor), end), next_cursor: end < wanted.length ? String(end) : null };
  };
}
