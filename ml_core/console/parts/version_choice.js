// <version-choice>: one version of a model, of however many, found by typing. It is the editable combobox with a list of
// the ARIA Authoring Practices: the focus stays in the field, the arrow keys move in the list, Enter takes, Escape closes.

import { ApiError, ask, at } from "../core/api.js";
import { html, render } from "../core/html.js";
import { badge } from "./states.js";

const MOST = 20;
const TYPED_S = 0.15;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/;

let made = 0;

/**
 * A field with the name of a version; when another is chosen, the form gets an `input` event of it.
 *
 * @param {string} model The path of the model, made by `at`. @param {string} chosen
 * @param {{name?: string, label?: string, withArchived?: boolean}} [options]
 */
export const versionField = (model, chosen, { name = "version", label = "Version", withArchived = false } = {}) =>
  html`<version-choice
    class="field"
    data-key="choose-${name}"
    model="${model}"
    name="${name}"
    label="${label}"
    value="${chosen}"
    ${withArchived && html`archived`}
  ></version-choice>`;

class VersionChoice extends HTMLElement {
  static observedAttributes = ["value"];

  #id = `version-choice-${++made}`;
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
      this.#checked();
      this.#isStale = true;
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(this.#typed), 1000 * TYPED_S);
    });
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("focusout", () => this.#left());
    this.addEventListener("pointerdown", (event) => {
      if (event.target !== this.#field) event.preventDefault(); // the focus stays in the field
    });
    this.addEventListener("click", (event) => {
      const option = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[role=option]"));
      if (option) this.#take(option.dataset.version ?? "");
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
    // What somebody has chosen stays when the page is loaded again.
    if (!this.#field || this.#chosen !== before || this.#isOpen) return;
    this.#chosen = value;
    this.#close();
  }

  get #field() {
    return /** @type {HTMLInputElement} */ (this.querySelector("[role=combobox]"));
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
      this.#active = (this.#active + step + this.#found.length) % Math.max(1, this.#found.length);
      this.#show();
    } else if (key === "Enter") {
      event.preventDefault(); // a form is sent by its button only
      if (this.#isStale) this.#isTaking = true;
      else if (this.#isOpen && this.#found[this.#active]) this.#take(this.#found[this.#active].version);
    } else if (key === "Escape" && (this.#isOpen || this.#typed !== this.#chosen)) {
      event.preventDefault(); // of the dialog
      event.stopPropagation();
      this.#close();
    }
  }

  /** The focus is elsewhere: the name of a version that was typed whole is taken, and anything else is not. */
  async #left() {
    const typed = this.#typed;
    if (typed === this.#chosen) return this.#close();
    const found = await this.#named(typed).catch(() => null);
    if (document.activeElement === this.#field) return;
    if (found) this.#take(found.version);
    else this.#close();
  }

  /** The version of this very name; null if there is none to choose. @param {string} name */
  async #named(name) {
    if (!NAME.test(name)) return null;
    const found = await ask("GET", `${this.#given("model")}/versions/${at(name)}`).catch(absent);
    const isOffered = found?.version === name && (this.hasAttribute("archived") || !found.archived_at);
    return isOffered ? found : null;
  }

  /** List the versions with a text in their name, that of this very name first. @param {string} text */
  async #search(text) {
    const asked = ++this.#asked;
    const query = { name: text, limit: MOST, include_archived: this.hasAttribute("archived") };
    try {
      const [page, named] = await Promise.all([
        ask("GET", `${this.#given("model")}/versions`, { query }),
        this.#named(text),
      ]);
      if (asked !== this.#asked || !this.contains(document.activeElement)) return;
      const others = page.items.filter((each) => each.version !== named?.version);
      this.#found = named ? [named, ...others] : others;
      this.#status = page.next_cursor
        ? `The newest ${MOST} are listed. Type a part of the name to find others.`
        : this.#found.length
          ? ""
          : `No version has “${text}” in its name.`;
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#found = [];
      this.#status = error instanceof Error ? error.message : String(error);
    }
    const chosen = this.#found.findIndex((each) => each.version === this.#chosen);
    this.#active = text ? 0 : Math.max(0, chosen);
    [this.#isOpen, this.#isStale] = [true, false];
    if (this.#isTaking && this.#found[0]?.version === text) this.#take(text);
    else this.#show();
    this.#isTaking = false;
  }

  /** @param {string} version */
  #take(version) {
    const isOther = version !== this.#chosen;
    this.#chosen = version;
    this.#close();
    if (isOther) this.querySelector("[type=hidden]")?.dispatchEvent(new Event("input", { bubbles: true }));
  }

  #close() {
    clearTimeout(this.#typing);
    this.#asked++;
    [this.#isOpen, this.#isTaking, this.#isStale, this.#found, this.#status] = [false, false, false, [], ""];
    this.#field.value = this.#chosen;
    this.#show();
  }

  /** A form is not sent while something else is typed than is chosen. */
  #checked() {
    this.#field.setCustomValidity(this.#typed === this.#chosen ? "" : "Choose a version of the list.");
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
            ${isListed && html`aria-activedescendant="${id}-${this.#active}"`}
            autocomplete="off"
            spellcheck="false"
          />
          <input type="hidden" name="${this.#given("name")}" value="${this.#chosen}" />
          <ul id="${id}-list" role="listbox" aria-label="Suggestions" ${!isListed && html`hidden`}>
            ${this.#found.map((each, index) => this.#option(each, index))}
          </ul>
        </div>
        <span class="quiet" role="status">${this.#status}</span>`,
    );
    this.#checked();
    this.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  /** @param {any} each @param {number} index */
  #option({ version, uses, archived_at: archivedAt, created_at: createdAt }, index) {
    return html`<li
      id="${this.#id}-${index}"
      role="option"
      data-version="${version}"
      aria-selected="${String(index === this.#active)}"
    >
      <b>${version}</b> ${uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}
      ${archivedAt && badge("archived")} <when-time class="quiet" datetime="${createdAt}"></when-time>
    </li>`;
  }
}

/** @param {unknown} error */
function absent(error) {
  if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 401) return null;
  throw error;
}

customElements.define("version-choice", VersionChoice);
