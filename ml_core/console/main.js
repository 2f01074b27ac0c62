// The frame around the pages: signs in, finds the page of the address, shows it, and keeps it up to date.

import { ApiError, unreachable } from "./core/api.js";
import { html, render } from "./core/html.js";
import { follow } from "./core/live.js";
import { link, pageOf, placeOf } from "./core/router.js";
import { present, signOut } from "./core/session.js";
import { signInPage, tenantsView } from "./pages/sign_in.js";
import { failed, loading, missing } from "./parts/states.js";
import "./parts/when_time.js";

/** @typedef {import("./core/session.js").Session} Session */
/**
 * What a page works with.
 *
 * @typedef {object} Context
 * @property {Session} session
 * @property {Record<string, string>} params The names in the address.
 * @property {Record<string, string>} query How it is filtered at this moment.
 * @property {AbortSignal} signal Aborted when the page is left.
 * @property {() => Promise<void>} refresh Shows what was done, or later: what was done did not fail with that.
 * @property {(message: string) => void} say Tells the reader that something was done.
 */
/**
 * A page: a file of `pages`, whose default export this is.
 *
 * @typedef {object} Page
 * @property {(params: Record<string, string>) => string} title
 * @property {(context: Context) => Promise<any>} load
 * @property {(data: any, context: Context) => ReturnType<typeof html>} view
 * @property {(main: HTMLElement, data: any, context: Context) => void} [connect] Called after each view.
 * @property {Record<string, (element: HTMLElement, data: any, context: Context) => unknown>} [actions]
 *   What an element with this `data-action` does when it is clicked, changed or submitted.
 * @property {string[]} [topics] It is loaded again when these change; a tenant's page else after changes of its audit.
 * @property {number | ((data: any) => number | undefined)} [everyS] Seconds after which it is loaded again in any case.
 */

/** @type {Record<string, () => Promise<{default: Page}>>} Address → page; each is loaded when it is first shown. */
const PAGES = {
  "": () => import("./pages/overview.js"),
  "t/:tenant": () => import("./pages/tenant.js"),
  "t/:tenant/models": () => import("./pages/models.js"),
  "t/:tenant/versions": () => import("./pages/versions.js"),
  "t/:tenant/models/:model": () => import("./pages/model.js"),
  "t/:tenant/models/:model/versions/:version": () => import("./pages/version.js"),
  "t/:tenant/models/:model/predictions": () => import("./pages/predictions.js"),
  keys: () => import("./pages/keys.js"),
  "t/:tenant/datasets": () => import("./pages/datasets.js"),
  "t/:tenant/datasets/:dataset": () => import("./pages/dataset.js"),
  "t/:tenant/keys": () => import("./pages/keys.js"),
  "t/:tenant/audit": () => import("./pages/audit.js"),
  "t/:tenant/jobs": () => import("./pages/jobs.js"),
  "t/:tenant/jobs/:job": () => import("./pages/job.js"),
  "t/:tenant/runs": () => import("./pages/runs.js"),
  "t/:tenant/runs/:run": () => import("./pages/run.js"),
  "t/:tenant/run-comparison": () => import("./pages/run_comparison.js"),
  "t/:tenant/training": () => import("./pages/training.js"),
  "t/:tenant/search": () => import("./pages/search.js"),
  "t/:tenant/dataset-prediction": () => import("./pages/dataset_prediction.js"),
  "t/:tenant/schedules": () => import("./pages/schedules.js"),
  "t/:tenant/schedules/:schedule": () => import("./pages/schedule.js"),
  "t/:tenant/quotas": () => import("./pages/quotas.js"),
  batches: () => import("./pages/job_batches.js"),
  "batches/:batch": () => import("./pages/job_batch.js"),
  placements: () => import("./pages/placements.js"),
};

/** The pages of a tenant in the bar. */
const NOUNS = ["Models", "Datasets", "Jobs", "Schedules", "Runs", "Quotas", "Audit"];

const bar = /** @type {HTMLElement} */ (document.getElementById("bar"));
const notice = /** @type {HTMLElement} */ (document.getElementById("notice"));
const main = /** @type {HTMLElement} */ (document.getElementById("main"));

/** @type {Session | null} */
let session = null;
let shown = new AbortController();
/** @type {{page: Page, data: any, context: Context, turn: () => Promise<void>} | null} */
let current = null;
/** The address of the page that is shown. */
let here = "";

/** Show the page of the present address. */
async function show() {
  const signal = leave();
  here = pageOf(location.hash);
  say("");
  try {
    session ??= await present();
  } catch (error) {
    if (signal.aborted) return;
    return error instanceof ApiError && error.status === 401 ? showSignIn() : fail(error);
  }
  if (signal.aborted) return;
  // Whoever is signed in for one tenant begins there; for several, by choosing one.
  if (!session.isOperator && /^#?\/?$/.test(location.hash)) {
    if (session.tenant) return location.replace(link(["t", session.tenant]));
    document.title = "Your tenants – ML Core";
    showBar(null);
    return render(main, tenantsView(session.tenants));
  }
  const place = placeOf(location.hash, Object.keys(PAGES));
  showBar(session.tenant ?? place?.params.tenant ?? null);
  if (place) await open(place, signal);
  else render(main, missing("There is no such page.", link([])));
}

/** @param {import("./core/router.js").Place} place @param {AbortSignal} signal */
async function open(place, signal) {
  try {
    const { default: page } = await PAGES[place.pattern]().catch((error) => {
      throw error instanceof TypeError ? unreachable() : error;
    });
    if (!signal.aborted) await keep(page, place, signal);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

/** Leave the page. @returns {AbortSignal} That of the next one. */
function leave() {
  shown.abort();
  shown = new AbortController();
  current = null;
  main.removeAttribute("aria-busy");
  return shown.signal;
}

/** Show why the page can't be shown. What may pass is tried again; what the API refused is not. @param {unknown} error */
function fail(error) {
  const signal = leave();
  render(main, failed(error));
  if (error instanceof ApiError && error.mayPass) setTimeout(() => signal.aborted || show(), 3000);
}

/**
 * Show a page, and keep it up to date until it is left.
 *
 * @param {Page} page @param {import("./core/router.js").Place} place @param {AbortSignal} signal
 */
async function keep(page, place, signal) {
  const { params } = place;
  let [asked, answered, turned] = [0, 0, 0];
  const update = async () => {
    const own = ++asked;
    const data = await page.load(context);
    if (signal.aborted || own < answered) return; // what was asked later is shown already
    answered = own;
    current = { page, data, context, turn };
    render(main, page.view(data, context));
    page.connect?.(main, data, context);
  };
  const turn = async () => {
    const own = ++turned;
    const isOver = () => signal.aborted || own !== turned;
    const { activeElement: focused } = document;
    say("");
    main.setAttribute("aria-busy", "true");
    try {
      await update();
      if (!isOver() && !focused?.isConnected) begin(); // it is another step of the page
      await Promise.all([...main.querySelectorAll("data-table")].map((list) => /** @type {any} */ (list).loaded));
    } catch (error) {
      if (!isOver()) fail(error);
    }
    if (!isOver()) main.removeAttribute("aria-busy");
  };
  /** @type {Context} */
  const context = {
    session: /** @type {Session} */ (session),
    params,
    get query() {
      return placeOf(location.hash, [place.pattern])?.query ?? place.query;
    },
    signal,
    refresh: () => update().catch(() => undefined),
    say,
  };
  document.title = `${page.title(params)} – ML Core`;
  render(main, loading(page.title(params)));
  await update();
  if (signal.aborted) return;
  begin();
  const { topics = params.tenant ? ["audit"] : [] } = page;
  const everyS = () => (typeof page.everyS === "function" ? page.everyS(current?.data) : page.everyS);
  await follow({ tenant: params.tenant, topics, everyS, signal, refresh: update, noticed: say });
}

/** Begin to read the page. */
function begin() {
  (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  scrollTo(0, 0);
}

function showSignIn() {
  leave(); // else the page would say in place of the form that it was refused
  session = null;
  render(bar, html``);
  document.title = "Sign in – ML Core";
  signInPage(main, (found) => {
    session = found;
    show();
  });
}

/** @param {string | null} tenant */
function showBar(tenant) {
  const entry = (names, text, isExact = false) => {
    const address = link(names);
    const isHere = isExact ? here === address : here.startsWith(address);
    return html`<a href="${address}" ${isHere && html`aria-current="page"`}>${text}</a>`;
  };
  render(
    bar,
    html`<a class="brand" href="${link([])}"><img src="icon.svg" alt="" width="22" height="22" /> ML Core</a>
      <nav aria-label="Pages">
        ${session && session.tenants.length > 1 && entry([], "Your tenants", true)}
        ${
          session?.isOperator &&
          html`<span>
            ${entry([], "Platform", true)} ${entry(["placements"], "Placements")} ${entry(["batches"], "Batches")}
            ${session.may("admin") && entry(["keys"], "Platform keys")}
          </span>`
        }
        ${
          tenant &&
          html`<span>
            ${entry(["t", tenant], tenant, true)}
            ${NOUNS.map((noun) => entry(["t", tenant, noun.toLowerCase()], noun))}
            ${session?.may("admin") && entry(["t", tenant, "keys"], "Keys")}
          </span>`
        }
      </nav>
      <div class="who">
        <span title="Your ${session?.credential}, as the audit names it">${session?.principal}</span>
        <button type="button" data-action="sign-out">Sign out</button>
      </div>`,
  );
}

/** @param {string} message */
function say(message) {
  render(notice, message ? html`<p>${message}</p>` : html``);
}

/** What the frame itself does. @type {Record<string, () => unknown>} */
const FRAME = {
  skip: () => main.focus(),
  "sign-out": async () => {
    await signOut();
    session = null;
    await show();
  },
};

/** @param {Event} event */
async function act(event) {
  const element = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[data-action]"));
  if (!element || element instanceof HTMLFormElement !== (event.type === "submit")) return;
  const name = element.getAttribute("data-action") ?? ""; // a form with a field `dataset` has that in place of its own
  const action = current?.page.actions?.[name];
  event.preventDefault();
  if (element.getAttribute("aria-disabled") === "true") return;
  try {
    if (name in FRAME) await FRAME[name]();
    else if (current) await action?.(element, current.data, current.context);
  } catch (error) {
    if (!current?.context.signal.aborted) say(error instanceof Error ? error.message : String(error));
  }
}

// Within a page only what differs is replaced.
addEventListener("hashchange", () => (current && pageOf(location.hash) === here ? current.turn() : show()));
addEventListener("signed-out", () => session && showSignIn());
document.addEventListener("click", act);
document.addEventListener("submit", act);
show();
