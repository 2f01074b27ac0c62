// Who is signed in, and what the key may do. The server decides; this only says beforehand what it would refuse.

import { ask } from "./api.js";

/** @typedef {{principal: string, tenant_id: string | null, scopes: string[]}} Who */

export class Session {
  /** @param {Who} who */
  constructor(who) {
    this.principal = who.principal;
    this.tenant = who.tenant_id;
    this.scopes = who.scopes;
  }

  /** Whether it is one of the platform, which may enter every tenant. */
  get isOperator() {
    return this.tenant === null;
  }

  /** @param {string} scope */
  may(scope) {
    return this.scopes.includes("admin") || this.scopes.includes(scope);
  }

  /**
   * Why the key may not do something, as a sentence; null: it may.
   *
   * @param {string} scope
   */
  lacks(scope) {
    return this.may(scope) ? null : `Your key lacks the scope ${scope}.`;
  }

  /** Why the key may not change what only the platform may; null: it may. */
  cannotOperate() {
    return this.isOperator ? this.lacks("admin") : "Only a key of the platform may change this.";
  }

  /**
   * Why the key may not move an environment; null: it may.
   *
   * @param {{environment: string, is_protected: boolean}} policy
   */
  cannotMove({ environment, is_protected: isProtected }) {
    const own = `promote:${environment}`;
    if (this.may(own) || (!isProtected && this.may("promote"))) return null;
    return isProtected
      ? `${environment} is protected, and your key lacks the scope ${own}.`
      : `Your key lacks the scope promote.`;
  }
}

/** The present session. @throws {import("./api.js").ApiError} 401: nobody is signed in */
export const present = async () => new Session(await ask("GET", "session"));

/** @param {string} key */
export const signIn = async (key) => new Session(await ask("POST", "session", { body: { key } }));

export const signOut = () => ask("DELETE", "session");
