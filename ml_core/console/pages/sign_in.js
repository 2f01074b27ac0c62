// Sign in with an API key, or with OpenID Connect. The address that was asked for is shown afterwards.

import { html, render } from "../core/html.js";
import { link } from "../core/router.js";
import { methods, openIdUrl, signIn } from "../core/session.js";
import { problem } from "../parts/states.js";

/**
 * Show the form in place of the pages.
 *
 * @param {HTMLElement} main
 * @param {(session: import("../core/session.js").Session) => void} signedIn
 */
export function signInPage(main, signedIn) {
  let openid = false;
  /** @param {unknown} [error] */
  const view = (error) =>
    render(
      main,
      html`<section class="sign-in">
        <h1 tabindex="-1">Sign in</h1>
        ${
          openid &&
          html`<p><a class="primary" href="${openIdUrl(location.hash)}">Sign in with OpenID Connect</a></p>
            <h2>With a key</h2>`
        }
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
          <button type="submit" class="${openid ? "" : "primary"}">Sign in</button>
        </form>
        <p class="quiet">
          Create one with <code>mlcore keys create --tenant TENANT --scope read</code>, or <code>--platform</code> for
          all tenants. The session ends after 8 hours, or with its ${openid ? "key or token" : "key"}.
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
  methods().then(
    (found) => {
      openid = found.openid;
      if (openid && form.isConnected) view();
    },
    () => undefined, // a key will do
  );
}

/**
 * The tenants of a token that is for several, to enter one.
 *
 * @param {string[]} tenants
 */
export const tenantsView = (tenants) =>
  html`<h1 tabindex="-1">Your tenants</h1>
    <section>
      <ul>
        ${tenants.map((tenant) => html`<li><a href="${link(["t", tenant])}">${tenant}</a></li>`)}
      </ul>
    </section>`;
