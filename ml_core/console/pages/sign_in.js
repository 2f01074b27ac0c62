// Sign in with an API key. The address that was asked for is shown afterwards.

import { html, render } from "../core/html.js";
import { signIn } from "../core/session.js";
import { problem } from "../parts/states.js";

/**
 * Show the form in place of the pages.
 *
 * @param {HTMLElement} main
 * @param {(session: import("../core/session.js").Session) => void} signedIn
 */
export function signInPage(main, signedIn) {
  /** @param {unknown} [error] */
  const view = (error) =>
    render(
      main,
      html`<section class="sign-in">
        <h1 tabindex="-1">Sign in</h1>
        <p>Use the API key of a tenant, or one of the platform. Only what the key may do can be done here.</p>
        <form id="sign-in">
          <label class="field"
            ><span>API key</span>
            <input
              name="key"
              type="password"
              required
              autocomplete="current-password"
              spellcheck="false"
              placeholder="mlk_…"
          /></label>
          ${error && problem(error)}
          <button type="submit" class="primary">Sign in</button>
        </form>
        <p class="quiet">
          Create one with <code>mlcore keys create --tenant TENANT --scope read</code>, or <code>--platform</code> for
          all tenants. The session ends after 8 hours, or with its key.
        </p>
      </section>`,
    );
  view();
  const form = /** @type {HTMLFormElement} */ (main.querySelector("form"));
  // In place of the one before, if the form was shown already.
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      signedIn(await signIn(String(new FormData(form).get("key"))));
    } catch (error) {
      view(error);
    }
  };
  form.querySelector("input")?.focus();
}
