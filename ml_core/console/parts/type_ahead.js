// <type-ahead>: one version, dataset or model, of however many, found by typing. It is the editable combobox with a list of
// the ARIA Authoring Practices: the focus stays in the field, the arrow keys move in the list, Enter takes, Escape closes.

import { ApiError, ask, at } from "../core/api.js";
import { counted } from "../core/format.js";
import { html, render } from "../core/html.js";
import { problemSlot } from "./fields.js";
import { badge } from "./states.js";

const MOST = 20;
const TYPED_S = 0.15;

/**
 * @typedef {object} Noun What is chosen.
 * @property {RegExp} name What a name looks like.
 * @property {(path: string, text: string, withArchived: boolean) => Promise<{items: any[], next_cursor: string | null}>} find
 *   Those with a text in their name, below the path that the field has.
 * @property {(path: string, name: string) => Promise<any>} named That of this very name; null: there is none.
 * @property {(item: any) => string} nameOf
 * @property {(item: any) => unknown} view What is shown behind the name.
 * @property {string} rest Which are listed where there are more.
 */

/** @type {Record<string, Noun>} */
const NOUNS = {
  version: {
    name: /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/,
    find: (path, text, withArchived) =>
      ask("GET", `${path}/versions`, { query: { name: text, limit: MOST, include_archived: withArchived } }),
    named: (path, name) => ask("GET", `${path}/versions/${at(name)}`),
    nameOf: ({ version }) => version,
    view: ({ uses, archived_at: archivedAt, created_at: createdAt }) =>
      html`${uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}
        ${archivedAt && badge("archived")} <when-time class="quiet" datetime="${createdAt}"></when-time>`,
    rest: `The newest ${MOST} are listed`,
  },
  dataset: {
    name: /^[a-z][a-z0-9_-]*(@[0-9]{1,9})?$/,
    find(path, text) {
      const [name, number] = text.split("@");
      if (number === undefined) return ask("GET", `${path}/datasets`, { query: { name, limit: MOST } });
      const none = { items: [], next_cursor: null };
      if (!this.name.test(name)) return Promise.resolve(none);
      const list = ask("GET", `${path}/${at("datasets", name)}/versions`, { query: { limit: MOST } });
      return list.catch((error) => absent(error) ?? none);
    },
    async named(path, name) {
      const [dataset, number = "newest"] = name.split("@");
      const version = await ask("GET", `${path}/${at("datasets", dataset, "versions", number)}`);
      return name.includes("@") ? version : { ...version, reference: undefined };
    },
    nameOf: ({ dataset_id: id, reference }) => reference ?? id,
    view: ({ versions, row_count: rows, archived_at: archivedAt, created_at: createdAt }) =>
      html`<span class="quiet"
          >${versions === undefined ? "" : `${counted(versions, "version")}, the newest with `}${counted(rows, "row")}</span
        >
        ${archivedAt && badge("archived")} <when-time class="quiet" datetime="${createdAt}"></when-time>`,
    rest: `The first ${MOST} are listed`,
  },
  model: {
    name: /^[a-z][a-z0-9_-]*$/,
    find: (path, text) => ask("GET", `${path}/models`, { query: { name: text, limit: MOST } }),
    async named(path, name) {
      const { items } = await ask("GET", `${path}/models`, { query: { name, limit: 1000 } });
      return items.find((each) => each.model_id === name) ?? null;
    },
    nameOf: ({ model_id: id }) => id,
    view: ({ model_type: type, versions }) => html`<span class="quiet">${type}, ${counted(versions, "version")}</span>`,
    rest: `The first ${MOST} are listed`,
  },
};

let made = 0;

/**
 * A field in which a thing is chosen by its name; when another is chosen, the form gets an `input` event of it.
 *
 * @param {string} noun Of `NOUNS`. @param {string} path Below which the API lists them, made by `at`.
 * @param {string} chosen
 * @param {{name: string, label: string, withArchived?: boolean, isNew?: boolean, isOptional?: boolean}} options
 *   isNew: another name may be given; isOptional: none may be.
 */
export const typeAhead = (noun, path, chosen, { name, label, withArchived, isNew, isOptional }) =>
  html`<type-ahead
      class="field"
      data-key="choose-${name}-of-${path}"
      noun="${noun}"
      path="${path}"
      name="${name}"
      label="${label}"
      value="${chosen}"
      ${withArchived && html`archived`}
      ${isNew && html`new`}
      ${isOptional && html`optional`}
    ></type-ahead
    >${problemSlot(name)}`;

/**
 * A field with the name of a version.
 *
 * @param {string} model The path of the model, made by `at`. @param {string} chosen
 * @param {{name?: string, label?: string, withArchived?: boolean}} [options]
 */
export const versionField = (model, chosen, { name = "version", label = "Version", withArchived = false } = {}) =>
  typeAhead("version", model, chosen, { name, label, withArchived });

class TypeAhead extends HTMLElement {
  static observedAttributes = ["value"];

  #id = `type-ahead-${++made}`;
  #chosen = "";
  #isOpen = false;
  #isTaking = false; // Enter came before the list
  #isStale = false; // the list is of what was typed before
  #active = 0;
  #asked = 0;
  #status = "";
  /** @type {any[]} */
  #found = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #typing;

  constructor() {
    super();
    this.addEventListener("input", (event) => {
      if (event.target !== this.#field) return;
      event.stopPropagation(); // nothing is chosen yet
      if (this.#isNew) this.#choose(this.#typed);
      this.#checked();
      this.#forget();
      [this.#isStale, this.#isTaking] = [true, false];
      this.#typing = setTimeout(() => this.#search(this.#typed), 1000 * TYPED_S);
    });
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("focusout", () => this.#left());
    this.addEventListener("pointerdown", (event) => {
      if (event.target !== this.#field) event.preventDefault(); // the focus stays in the field
    });
    this.addEventListener("click", (event) => {
      const option = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[role=option]"));
      if (option) this.#take(option.dataset.name ?? "");
      else if (event.target === this.#field && !this.#isOpen) this.#search("");
    });
  }

  connectedCallback() {
    if (this.#field) return;
    this.#chosen = this.#given("value");
    this.#show();
    this.#close();
  }

  /** @param {string} _ @param {string | null} before @param {string} value */
  attributeChangedCallback(_, before, value) {
    // What somebody has chosen, types or looks for stays when the page is loaded again.
    if (!this.#field || this.#chosen !== before) return;
    if (this.#typed === before) this.#field.value = value;
    this.#chosen = value;
    this.#show();
  }

  get #field() {
    return /** @type {HTMLInputElement} */ (this.querySelector("[role=combobox]"));
  }

  get #noun() {
    return NOUNS[this.#given("noun")];
  }

  /** Whether a name that nothing has yet may be given. */
  get #isNew() {
    return this.hasAttribute("new");
  }

  get #typed() {
    return this.#field.value.trim();
  }

  /** @param {string} name */
  #given = (name) => this.getAttribute(name) ?? "";

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      event.preventDefault();
      if (!this.#isOpen) return void this.#search(this.#typed === this.#chosen ? "" : this.#typed);
      const step = key === "ArrowDown" ? 1 : -1;
      const from = this.#active < 0 && step < 0 ? 0 : this.#active;
      this.#active = (from + step + this.#found.length) % Math.max(1, this.#found.length);
      this.#show();
    } else if (key === "Enter") {
      event.preventDefault(); // a form is sent by its button only
      const active = this.#found[this.#active];
      if (this.#isStale && !this.#isNew) this.#isTaking = true;
      else if (this.#isOpen && active) this.#take(this.#noun.nameOf(active));
      else if (this.#isNew) this.#close();
    } else if (key === "Escape" && (this.#isOpen || this.#typed !== this.#chosen)) {
      event.preventDefault(); // of the dialog
      event.stopPropagation();
      this.#close();
    }
  }

  /** The focus is elsewhere: a name that was typed whole is taken, and anything else is not. */
  async #left() {
    if (document.activeElement === this.#field) return; // only the window lost it
    const typed = this.#typed;
    if (typed === this.#chosen) return this.#close();
    if (!typed && this.hasAttribute("optional")) return this.#take("");
    const asked = this.#forget();
    const found = await this.#named(typed).catch(() => null);
    if (asked !== this.#asked) return;
    if (found) this.#take(typed);
    else this.#close();
  }

  /** What has this very name; null if there is nothing to choose. @param {string} name */
  async #named(name) {
    const { name: form, named, nameOf } = this.#noun;
    if (!form.test(name)) return null;
    const found = await named(this.#given("path"), name).catch(absent);
    const isOffered = found && nameOf(found) === name && (this.hasAttribute("archived") || !found.archived_at);
    return isOffered ? found : null;
  }

  /** No search that was begun or is due counts any more. @returns {number} That of the next one. */
  #forget() {
    clearTimeout(this.#typing);
    return ++this.#asked;
  }

  /** List those with a text in their name, that of this very name first. @param {string} text */
  async #search(text) {
    const asked = this.#forget();
    const noun = this.#noun;
    const { nameOf, rest } = noun;
    try {
      const [page, named] = await Promise.all([
        noun.find(this.#given("path"), text, this.hasAttribute("archived")),
        this.#named(text),
      ]);
      if (asked !== this.#asked) return;
      const others = page.items.filter((each) => !named || nameOf(each) !== nameOf(named));
      this.#found = named ? [named, ...others] : others;
      this.#status = page.next_cursor
        ? `${rest}. Type a part of the name to find others.`
        : this.#found.length
          ? ""
          : this.#isNew
            ? ""
            : `No ${this.#given("noun")} has “${text}” in its name.`;
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#found = [];
      this.#status = error instanceof Error ? error.message : String(error);
    }
    const chosen = this.#found.findIndex((each) => nameOf(each) === this.#chosen);
    this.#active = this.#isNew ? chosen : text ? 0 : Math.max(0, chosen);
    [this.#isOpen, this.#isStale] = [true, false];
    if (this.#isTaking && this.#found.length && nameOf(this.#found[0]) === text) this.#take(text);
    else this.#show();
    this.#isTaking = false;
  }

  /** @param {string} name */
  #take(name) {
    const isOther = name !== this.#chosen;
    this.#chosen = name;
    this.#close();
    if (isOther) this.#choose(name);
  }

  /** Tell the form. @param {string} name */
  #choose(name) {
    this.#chosen = name;
    const field = /** @type {HTMLInputElement} */ (this.querySelector("[type=hidden]"));
    field.value = name;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  #close() {
    this.#forget();
    [this.#isOpen, this.#isTaking, this.#isStale, this.#found, this.#status] = [false, false, false, [], ""];
    this.#field.value = this.#chosen;
    this.#show();
  }

  /** A form is not sent while something else is typed than is chosen. */
  #checked() {
    this.#field.setCustomValidity(this.#typed === this.#chosen ? "" : `Choose a ${this.#given("noun")} of the list.`);
  }

  #show() {
    const [id, label] = [this.#id, this.#given("label")];
    const isListed = this.#isOpen && this.#found.length > 0;
    render(
      this,
      html`<label for="${id}">${label}</label>
        <div class="combobox">
          <input
            id="${id}"
            role="combobox"
            aria-autocomplete="list"
            aria-expanded="${String(isListed)}"
            aria-controls="${id}-list"
            ${isListed && this.#active >= 0 && html`aria-activedescendant="${id}-${this.#active}"`}
            ${!this.hasAttribute("optional") && html`required`}
            autocomplete="off"
            spellcheck="false"
          />
          <input type="hidden" name="${this.#given("name")}" value="${this.#chosen}" />
          <div class="suggestions ${(isListed || this.#status) && "open"}">
            <ul id="${id}-list" role="listbox" aria-label="Suggestions" ${!isListed && html`hidden`}>
              ${this.#found.map((each, index) => this.#option(each, index))}
            </ul>
            <span class="quiet" role="status">${this.#status}</span>
          </div>
        </div>`,
    );
    this.#checked();
    this.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  /** @param {any} each @param {number} index */
  #option(each, index) {
    const { nameOf, view } = this.#noun;
    return html`<li
      id="${this.#id}-${index}"
      role="option"
      data-name="${nameOf(each)}"
      aria-selected="${String(index === this.#active)}"
    >
      <b>${nameOf(each)}</b> ${view(each)}
    </li>`;
  }
}

/** @param {unknown} error */
function absent(error) {
  if (error instanceof ApiError && [400, 404, 422].includes(error.status)) return null;
  throw error;
}

customElements.define("type-ahead", TypeAhead);
