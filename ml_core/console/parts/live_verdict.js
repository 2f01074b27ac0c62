// <live-verdict tenant model report>: whether a model's live quality, or its drift, gives an alert. The report reads days
// of predictions, so it is asked for once, when it is shown, and the page does not wait for it.

import { ask, at } from "../core/api.js";
import { html, render } from "../core/html.js";
import { badge } from "./states.js";

const MEANINGS = /** @type {Record<string, string>} */ ({
  ok: "As in training.",
  alert: "Worse than in training, by more than chance.",
  unknown: "Too few rows or labels yet.",
});

class LiveVerdict extends HTMLElement {
  #left = new AbortController();

  async connectedCallback() {
    this.#left = new AbortController();
    const { signal } = this.#left;
    const [tenant, model, report] = ["tenant", "model", "report"].map((name) => this.getAttribute(name) ?? "");
    try {
      const { verdict } = await ask("GET", `${at("tenants", tenant, "models", model)}/${report}`, { signal });
      render(this, html`<span title="${MEANINGS[verdict]}">${badge(verdict)}</span>`);
    } catch (error) {
      if (signal.aborted) return;
      render(
        this,
        html`<span class="quiet" title="${error instanceof Error ? error.message : error}">not known</span>`,
      );
    }
  }

  disconnectedCallback() {
    this.#left.abort(); // the next page must not wait for it
  }
}

customElements.define("live-verdict", LiveVerdict);
