// A model: what each environment serves and how that is moved, its history, its versions, and two of them side by side.

import { ApiError, ask, at, every } from "../core/api.js";
import { counted, number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { comparison, comparisonView } from "../parts/comparison.js";
import { openDialog, reasonField } from "../parts/dialog.js";
import { gatesView, MOVES, openMove, servedBy, servedText, versionField } from "../parts/moves.js";
import { badge, button, empty, problem, refusal } from "../parts/states.js";

const SHOWN_VERSIONS = 100;
const SHOWN_MOVES = 50;

/** @type {import("../main.js").Page} */
export default {
  title: ({ model }) => model,

  async load({ params: { tenant, model }, query, signal }) {
    const [ofTenant, root] = [at("tenants", tenant), at("tenants", tenant, "models", model)];
    const list = (path, filters = {}) => ask("GET", path, { query: filters, signal });
    const [versions, policies, pointers, gates] = await Promise.all([
      list(`${root}/versions`, { limit: SHOWN_VERSIONS, include_archived: query.archived }),
      list(`${ofTenant}/environments`),
      every(`${ofTenant}/pointers`, { query: { model }, signal }),
      list(`${root}/gates`),
    ]);
    const environments = policies.map((policy) => ({
      ...policy,
      pointer: pointers.find((pointer) => pointer.environment === policy.environment) ?? null,
      gates: gates.filter((gate) => gate.environment === policy.environment),
    }));
    const open = environments.find((each) => each.environment === query.environment) ?? defaultOf(environments);
    const [moves, replicas, compared] = await Promise.all([
      open.pointer ? list(`${root}/environments/${at(open.environment)}/moves`, { limit: SHOWN_MOVES }) : { items: [] },
      open.pointer?.version ? list(`${root}/environments/${at(open.environment)}/replicas`).catch(refusal) : [],
      comparison(root, versions.items, open.pointer, query, signal),
    ]);
    return { versions, environments, open, moves, replicas, compared };
  },

  view(data, context) {
    const { model } = context.params;
    const { versions, environments, open, compared } = data;
    return html`<h1 tabindex="-1">${model}</h1>
      <p class="quiet">
        ${versions.items[0]?.model_type} with
        ${counted(versions.items.length, "version")}${versions.next_cursor && " and more"} ·
        <a href="${link(["t", context.params.tenant, "models", model, "predictions"])}"
          >Predictions, quality and drift</a
        >
        · <a href="${link(["t", context.params.tenant, "runs"], { model })}">Runs</a>
        · <a href="${link(["t", context.params.tenant, "training"], { model })}">Train a version</a>
      </p>
      <section>
        <h2>Environments</h2>
        <div class="tabs">${environments.map((each) => tab(each, each === open, context))}</div>
        ${environmentView(open, data, context)}
      </section>
      <section>
        <h2>Versions</h2>
        ${versions.items.length ? versionTable(data, context) : empty("It has no version.")}
      </section>
      ${compared && comparisonView(compared, data, context)}`;
  },

  actions: {
    async move(element, { open, versions }, { params: { tenant, model }, session, refresh, say }) {
      const name = element.dataset.move ?? "";
      openMove({
        name,
        tenant,
        model,
        environment: open.environment,
        pointer: open.pointer,
        versions: promotable(versions.items).map((version) => version.version),
        mayOverride: session.may("admin"),
        async done(pointer) {
          await refresh();
          const { environment } = pointer;
          say(`${MOVES[name].label}: done. ${environment} of ${model} is at generation ${pointer.generation}.`);
        },
      });
    },

    approve(_, { open, versions }, { params: { tenant, model }, refresh, say }) {
      const names = promotable(versions.items).map((version) => version.version);
      openDialog({
        content: () => ({
          title: `Approve a version of ${model} for ${open.environment}`,
          submit: "Approve",
          body: html`${versionField(names, names[0])}
            <p class="quiet">An approval is never withdrawn. Yours does not count for a version that you registered.</p>
            ${reasonField({ label: "Reason (kept with the approval)" })}`,
        }),
        async submit(fields) {
          const path = `${at("tenants", tenant, "models", model, "environments", open.environment)}/approvals`;
          const { approver, version } = await ask("POST", path, { body: fields });
          await refresh();
          say(`${approver} approved version ${version} of ${model} for ${open.environment}.`);
        },
      });
    },

    compare(element, _, { params: { tenant, model }, query }) {
      const fields = new FormData(/** @type {HTMLFormElement} */ (element));
      const chosen = /** @type {Record<string, string>} */ (Object.fromEntries(fields));
      location.hash = link(["t", tenant, "models", model], { ...query, ...chosen });
    },
  },
};

/** The environment that is shown first: production, or else the last. @param {any[]} environments */
const defaultOf = (environments) =>
  environments.find((each) => each.environment === "production") ?? environments.at(-1);

/** @param {any[]} versions */
const promotable = (versions) => versions.filter((version) => !version.archived_at);

/** @param {any} each @param {boolean} isOpen @param {import("../main.js").Context} context */
function tab({ environment, pointer, is_protected: isProtected }, isOpen, { params: { tenant, model }, query }) {
  const address = link(["t", tenant, "models", model], { ...query, environment });
  return html`<a class="tab" data-key="tab-${environment}" href="${address}" ${isOpen && html`aria-current="true"`}>
    <b>${environment}</b> ${isProtected && badge("protected")}<span>${servedText(servedBy(pointer))}</span></a
  >`;
}

/** @param {any} open @param {any} data @param {import("../main.js").Context} context */
function environmentView(open, { moves, replicas, versions }, { session }) {
  const { environment, pointer, gates } = open;
  const now = servedBy(pointer);
  const refused = session.cannotMove(open) ?? (versions.items.length ? null : "The model has no version.");
  const possible = Object.entries(MOVES).filter(([, move]) => move.isPossible(now));
  const offered = pointer ? possible : possible.filter(([name]) => name === "promote");
  return html`<div class="card" data-key="environment-${environment}">
    <p class="serving">
      ${environment} serves ${servedText(now)}.
      ${pointer && html`<span class="quiet">Generation ${pointer.generation}, moved by ${pointer.updated_by} <when-time datetime="${pointer.updated_at}"></when-time>.</span>`}
    </p>
    ${replicasView(replicas)}
    <div class="buttons" role="group" aria-label="Moves of ${environment}">
      ${offered.map(([name, move]) =>
        button({
          action: "move",
          text: `${move.label}…`,
          data: { move: name },
          refused,
          style: move.isDestructive ? "danger" : "",
        }),
      )}${button({ action: "approve", text: "Approve…", refused: session.lacks("approve") })}
    </div>
    ${refused && html`<p class="quiet">${refused}</p>`}
    ${
      gates.length > 0 &&
      html`<h3>Gates</h3>
        <ul class="rows">
          ${gates.map(gateRow)}
        </ul>`
    }
    <h3>Moves</h3>
    ${
      moves.items.length
        ? html`<ol class="timeline">
            ${moves.items.map(moveView)}
          </ol>`
        : empty("Nothing was promoted to it yet.")
    }
  </div>`;
}

/** @param {any} replicas */
function replicasView(replicas) {
  if (replicas instanceof ApiError) return problem(replicas);
  if (!replicas.length) return html``;
  const loaded = replicas.filter((replica) => replica.state === "loaded").length;
  const failed = replicas.filter((replica) => replica.state === "failed");
  return html`<p class="quiet">
      ${loaded} of ${counted(replicas.length, "replica")} ${loaded === 1 ? "has" : "have"} loaded it.
    </p>
    ${failed.map(
      ({ replica_id: id, version, serves, reason }) =>
        html`<p class="problem">
          Replica ${id} could not load version ${version}: ${reason}
          ${serves ? `Version ${serves} answers meanwhile.` : "Requests are refused meanwhile."}
        </p>`,
    )}`;
}

/** @param {any} gate */
function gateRow({ name, kind, settings, created_by: by }) {
  const given = Object.entries(settings).filter(([, value]) => value !== null);
  return html`<li data-key="${name}">
    <b>${name}</b> ${words(kind)} ${given.map(([key, value]) => html`<code>${key}=${shown(value)}</code> `)}<span
      class="quiet"
      >set by ${by}</span
    >
  </li>`;
}

/** @param {any} move */
function moveView({
  generation,
  action,
  version,
  canary,
  shadow,
  actor,
  reason,
  at: moment,
  gates,
  override_reason: override,
}) {
  return html`<li data-key="move-${generation}">
    <p><b>${words(action)}</b> → ${servedText({ stable: version, canary, shadow })}</p>
    <p class="quiet">
      ${generation}. ${actor}, <when-time datetime="${moment}"></when-time>${reason && html`: “${reason}”`}
    </p>
    ${override && html`<p class="quiet">A gate was overridden: “${override}”</p>`}
    ${
      gates.length > 0 &&
      html`<details>
        <summary>${counted(gates.length, "gate")}</summary>
        ${gatesView(gates)}
      </details>`
    }
  </li>`;
}

/** @param {any} data @param {import("../main.js").Context} context */
function versionTable({ versions }, { params: { tenant, model } }) {
  const names = metricNames(versions.items);
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Versions">
      <table>
        <thead>
          <tr>
            <th scope="col">Version</th>
            <th scope="col">Used by</th>
            <th scope="col">Algorithm</th>
            ${names.map((name) => html`<th scope="col" class="number">${words(name)}</th>`)}
            <th scope="col">Registered</th>
            <th scope="col">By</th>
          </tr>
        </thead>
        <tbody>
          ${versions.items.map(
            (version) =>
              html`<tr data-key="version-${version.version}">
                <td>
                  <a href="${link(["t", tenant, "models", model, "versions", version.version])}">${version.version}</a>
                </td>
                <td>
                  ${version.uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}${version.archived_at && badge("archived")}
                </td>
                <td>${words(version.algorithm ?? "–")}</td>
                ${names.map((name) => html`<td class="number">${number(version.metrics.validation?.[name])}</td>`)}
                <td><when-time datetime="${version.created_at}"></when-time></td>
                <td class="quiet">${version.created_by}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    ${versions.next_cursor && html`<p class="quiet">The newest ${SHOWN_VERSIONS} are shown.</p>`}`;
}

/** The held-out metrics of some versions, those that most have first. @param {any[]} versions */
function metricNames(versions) {
  const counts = new Map();
  for (const { metrics } of versions)
    for (const name of Object.keys(metrics.validation ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, 6);
}
