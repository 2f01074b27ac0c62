// <data-table>: a list of the API, a page at a time, with a search where the list has one. A page calls `showList`.

import { ApiError } from "../core/api.js";
import { html, render } from "../core/html.js";
import { pageOf } from "../core/router.js";
import { empty, problem } from "./states.js";
import { table } from "./table.js";

const PAGE = 50;
const MOST = 1000; // that the API answers at once
const TYPED_S = 0.2;
const RETRY_S = 3;

/** @typedef {ReturnType<typeof html>} Html */
/** @typedef {import("./table.js").Column} Column */
/**
 * @typedef {object} Source
 * @property {string} label What is listed, for screen readers.
 * @property {Column[] | ((items: any[]) => Column[])} columns Those of any list, or of these items.
 * @property {(item: any) => string} key
 * @property {(query: {limit: number, cursor?: string, text: string}) => Promise<{items: any[], next_cursor: string | null}>} load
 * @property {Html | string} none What to do where there is nothing.
 * @property {string} [search] The label of the search.
 * @property {string} [text] What is searched for, as the address says.
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
  #wanted = PAGE;
  #asked = 0;
  #answered = 0;
  /** @type {unknown} */
  #error;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #typing;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** Resolved when the list is shown. */
  loaded = Promise.resolve();

  constructor() {
    super();
    this.addEventListener("input", ({ target }) => {
      if (target !== this.#field) return; // a row has fields of its own
      clearTimeout(this.#typing);
      const page = pageOf(location.hash); // the address is another one while the next page loads
      this.#typing = setTimeout(() => pageOf(location.hash) === page && this.#search(), 1000 * TYPED_S);
    });
    this.addEventListener("click", (event) => {
      if (!(/** @type {Element} */ (event.target).closest(".more"))) return;
      this.#wanted = this.#items.length + PAGE;
      // The cursor is of the list that is shown; while another one is on its way, that is read.
      if (this.#asked === this.#answered) this.#load(this.#items, this.#cursor);
      else this.#load();
    });
  }

  disconnectedCallback() {
    clearTimeout(this.#typing); // it would be kept in the address of another page
    clearTimeout(this.#retry);
  }

  /** Where a search is typed. */
  get #field() {
    return /** @type {HTMLInputElement | null} */ (this.querySelector("input[type=search]"));
  }

  /** Show a list, or the same list again: then as many rows as before are read. @param {Source} source */
  set source(source) {
    if (source.searched) this.#text = source.text ?? "";
    this.#source = source;
    this.loaded = this.#load();
  }

  #search() {
    const text = this.#field?.value.trim() ?? "";
    if (text === this.#text) return;
    this.#text = text;
    this.#source?.searched?.(text);
    this.#wanted = PAGE;
    this.#load();
  }

  /**
   * Read rows until there are as many as wanted.
   *
   * @param {any[]} [items] Those before the cursor.
   * @param {string | null} [cursor]
   */
  async #load(items = [], cursor) {
    const source = /** @type {Source} */ (this.#source);
    clearTimeout(this.#retry);
    const asked = ++this.#asked; // an answer that was overtaken is not shown
    try {
      do {
        const limit = Math.min(MOST, this.#wanted - items.length);
        const page = await source.load({ limit, cursor: cursor ?? undefined, text: this.#text });
        if (asked !== this.#asked) return;
        items = [...items, ...page.items];
        cursor = page.next_cursor;
      } while (cursor && items.length < this.#wanted);
      [this.#items, this.#cursor, this.#error, this.#answered] = [items, cursor, undefined, asked];
    } catch (error) {
      const isLeft = error instanceof DOMException && error.name === "AbortError"; // another page is on its way
      if (asked !== this.#asked || !this.isConnected || isLeft) return;
      this.#error = error;
      // What was read stays while the platform is away.
      if (error instanceof ApiError && error.mayPass) this.#retry = setTimeout(() => this.#load(), 1000 * RETRY_S);
      else [this.#items, this.#cursor] = [[], null];
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
      ${this.#error && problem(this.#error)}
      ${this.#items.length ? this.#table(source) : !this.#error && this.#nothing(source)}`,
    );
  }

  /** @param {Source} source */
  #nothing(source) {
    return this.#text ? empty(`Nothing has “${this.#text}” in its name.`) : empty(source.none);
  }

  /** @param {Source} source */
  #table({ label, columns, key }) {
    return html`${table(label, typeof columns === "function" ? columns(this.#items) : columns, this.#items, key)}
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

/** Whether a name has a text; case does not matter. @param {string} name @param {string | undefined} text */
export const matches = (name, text = "") => name.toLowerCase().includes(text.toLowerCase());

/**
 * A list that a page has already, as a table reads it: a page at a time, those with a text in their name.
 *
 * @template T
 * @param {T[]} items @param {(item: T) => string} name
 */
export function listed(items, name) {
  return async ({ limit, cursor = "0", text }) => {
    const wanted = items.filter((item) => matches(name(item), text));
    const end = Number(cursor) + limit;
    return { items: wanted.slice(Number(cursor), end), next_cursor: end < wanted.length ? String(end) : null };
  };
}
