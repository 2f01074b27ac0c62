// Who is signed in, and what the key or token may do. The server decides; this only says beforehand what it would refuse.

import { ask, controlUrl } from "./api.js";

/** @typedef {{principal: string, tenants: string[] | null, scopes: string[]}} Who Without tenants: of the platform. */

export class Session {
  /** @param {Who} who */
  constructor(who) {
    this.principal = who.principal;
    this.tenants = who.tenants ?? [];
    this.isOperator = who.tenants === null;
    this.scopes = who.scopes;
  }

  /** The only tenant; null: there are several, or all. */
  get tenant() {
    return this.tenants.length === 1 ? this.tenants[0] : null;
  }

  /** What stands for whoever is signed in. */
  get credential() {
    return this.principal.startsWith("oidc:") ? "token" : "key";
  }

  /** @param {string} scope */
  may(scope) {
    return this.scopes.includes("admin") || this.scopes.includes(scope);
  }

  /**
   * Why one may not do something, as a sentence; null: it may.
   *
   * @param {string} scope
   */
  lacks(scope) {
    return this.may(scope) ? null : `Your ${this.credential} lacks the scope ${scope}.`;
  }

  /** Why the key may not change what only the platform may; null: it may. */
  cannotOperate() {
    return this.isOperator ? this.lacks("admin") : "Only a key of the platform may change this.";
  }

  /**
   * Why one may not move an environment; null: it may.
   *
   * @param {{environment: string, is_protected: boolean}} policy
   */
  cannotMove({ environment, is_protected: isProtected }) {
    const own = `promote:${environment}`;
    if (this.may(own) || (!isProtected && this.may("promote"))) return null;
    return isProtected
      ? `${environment} is protected, and your ${this.credential} lacks the scope ${own}.`
      : this.lacks("promote");
  }
}

/** The present session. @throws {import("./api.js").ApiError} 401: nobody is signed in */
export const present = async () => new Session(await ask("GET", "session"));

/** @param {string} key */
export const signIn = async (key) => new Session(await ask("POST", "session", { body: { key } }));

/** Whether one may sign in with OpenID Connect, besides with a key. @returns {Promise<{openid: boolean}>} */
export const methods = () => ask("GET", "session/methods");

/** Where to sign in with OpenID Connect, to see a page afterwards. @param {string} hash The page's address. */
export const openIdUrl = (hash) => controlUrl(`session/openid?${new URLSearchParams({ address: hash })}`);

export const signOut = () => ask("DELETE", "session");
