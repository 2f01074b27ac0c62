// A model: what each environment serves and how that is moved, its history, its versions, and two of them side by side.

import { ApiError, ask, at, every } from "../core/api.js";
import { counted, number, words } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link, turn } from "../core/router.js";
import { actButton, acting, actsView, archiving } from "../parts/acts.js";
import { comparison, comparisonView } from "../parts/comparison.js";
import { showList } from "../parts/data_table.js";
import { openDialog, reasonField } from "../parts/dialog.js";
import { fieldsOf } from "../parts/fields.js";
import { gateRow, openGate } from "../parts/gates.js";
import { lineageGraph } from "../parts/lineage.js";
import { metricDiff } from "../parts/metric_diff.js";
import { gatesView, MOVES, openMove, servedBy, servedText } from "../parts/moves.js";
import { replicasView } from "../parts/replicas.js";
import { badge, button, empty, problem, refusal } from "../parts/states.js";
import { timeline } from "../parts/timeline.js";
import { versionField } from "../parts/type_ahead.js";

const SHOWN_MOVES = 50;
const MOST_METRICS = 6;
const SPLIT = "validation";

/** @type {import("../main.js").Page} */
export default {
  title: ({ model }) => model,

  async load({ params: { tenant, model }, query, signal }) {
    const [ofTenant, root] = [at("tenants", tenant), at("tenants", tenant, "models", model)];
    const list = (path, filters = {}) => ask("GET", path, { query: filters, signal });
    const [named, newest, policies, pointers, gates, metrics] = await Promise.all([
      every(`${ofTenant}/models`, { query: { name: model, include_archived: true }, signal }),
      list(`${root}/versions`, { limit: 2 }),
      list(`${ofTenant}/environments`),
      every(`${ofTenant}/pointers`, { query: { model }, signal }),
      list(`${root}/gates`),
      list(`${ofTenant}/versions/metrics`),
    ]);
    const movesOf = (environment, cursor) =>
      list(`${root}/environments/${at(environment)}/moves`, { limit: SHOWN_MOVES, cursor });
    const environments = await Promise.all(
      policies.map(async (policy) => {
        const pointer = pointers.find((each) => each.environment === policy.environment) ?? null;
        const moves = pointer ? await movesOf(policy.environment) : { items: [] };
        return { ...policy, pointer, moves, gates: gates.filter((gate) => gate.environment === policy.environment) };
      }),
    );
    const open = environments.find((each) => each.environment === query.environment) ?? defaultOf(environments);
    const against = query.against ?? open.pointer?.version;
    const shownVersion = open.pointer?.version ?? newest.items[0]?.version;
    const [moves, replicas, reference, lineage, compared] = await Promise.all([
      query.moves && open.pointer ? movesOf(open.environment, query.moves) : open.moves,
      open.pointer?.version ? list(`${root}/environments/${at(open.environment)}/replicas`).catch(refusal) : [],
      against ? list(`${root}/versions/${at(against)}`).catch(refusal) : null,
      shownVersion ? list(`${root}/versions/${at(shownVersion)}/lineage`) : null,
      comparison(root, newest.items.map(({ version }) => version), open.pointer, query, signal), // prettier-ignore
    ]);
    const found = named.find((each) => each.model_id === model);
    return {
      isArchived: Boolean(found?.archived_at),
      newest: newest.items,
      environments,
      open,
      moves,
      replicas,
      metrics,
      reference,
      lineage,
      compared,
    };
  },

  view(data, context) {
    const { tenant, model } = context.params;
    const { newest, environments, open, lineage, compared } = data;
    const { archive, restore, remove } = actsOf(data, context);
    return html`<h1 tabindex="-1">${model} ${data.isArchived && badge("archived")}</h1>
      <p class="quiet">
        ${newest[0]?.model_type} ·
        <a href="${link(["t", tenant, "models", model, "predictions"])}">Predictions, quality and drift</a> ·
        <a href="${link(["t", tenant, "runs"], { model })}">Runs</a> ·
        <a href="${link(["t", tenant, "training"], { model })}">Train a version</a> ·
        <a href="${link(["t", tenant, "search"], { model })}">Search for hyperparameters</a> ·
        <a href="${link(["t", tenant, "dataset-prediction"], { model })}">Predict a dataset</a>
      </p>
      ${actsView("Model", { archive, restore, remove })}
      <section>
        <h2>Environments</h2>
        ${timeline(environments.map(({ environment, moves }) => ({ environment, moves: moves.items })))}
        <div class="tabs">${environments.map((each) => tab(each, each === open, context))}</div>
        ${environmentView(open, data, context, actsOf(data, context))}
      </section>
      <section>
        <h2>Versions</h2>
        ${arrangement(data, context)}
        <data-table data-key="versions"></data-table>
      </section>
      ${
        lineage &&
        html`<section>
          <h2>Lineage of version ${lineage.version}</h2>
          ${lineageGraph(lineage, usesOf(lineage.version, environments), tenant, model)}
          <p class="quiet">
            ${open.pointer?.version ? `This is what ${open.environment} serves.` : "This is the newest version."} The
            page of each version has its own.
          </p>
        </section>`
      }
      ${compared && comparisonView(compared, context)}`;
  },

  connect(main, data, { params: { tenant, model }, query, signal }) {
    const path = `${at("tenants", tenant, "models", model)}/versions`;
    const sorting = { sort: query.sort, include_archived: query.archived && true };
    const source = {
      label: "Versions",
      search: "Search versions",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (version) => version.version,
      load: ({ text, ...of }) => ask("GET", path, { query: { ...of, ...sorting, name: text }, signal }),
      none: html`There is no version to show. Train one:
        <code>mlcore train FILE.csv --tenant ${tenant} --model ${model} --target COLUMN</code>`,
      columns: (versions) =>
        versionColumns(versions, data, (name) => link(["t", tenant, "models", model, "versions", name])),
    };
    showList(main, source, "data-table[data-key=versions]");
  },

  actions: {
    act: acting(actsOf),

    gate(element, { open }, { params: { tenant, model }, refresh, say }) {
      const { environment, gates } = open;
      openGate({
        tenant,
        model,
        environment,
        gate: gates.find(({ name }) => name === element.getAttribute("data-gate")),
        async done(name) {
          await refresh();
          say(`The gate ${name} of ${environment} is set.`);
        },
      });
    },

    async move(element, { open, newest }, { params: { tenant, model }, session, refresh, say }) {
      const name = element.dataset.move ?? "";
      openMove({
        name,
        tenant,
        model,
        environment: open.environment,
        pointer: open.pointer,
        versions: newest.map(({ version }) => version),
        mayOverride: session.may("admin"),
        async done(pointer) {
          await refresh();
          const { environment } = pointer;
          say(`${MOVES[name].label}: done. ${environment} of ${model} is at generation ${pointer.generation}.`);
        },
      });
    },

    approve(_, { open, newest }, { params: { tenant, model }, refresh, say }) {
      openDialog({
        content: () => ({
          title: `Approve a version of ${model} for ${open.environment}`,
          submit: "Approve",
          body: html`${versionField(at("tenants", tenant, "models", model), newest[0]?.version)}
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

    compare: (element) => turn(fieldsOf(element)),
    arrange: (element) => turn({ archived: undefined, ...fieldsOf(element) }), // unticked, it is no field of the form
    older: (_, { moves }) => turn({ moves: moves.next_cursor }),
    newest: () => turn({ moves: undefined }),
  },
};

/** The environments that use a version. @param {string} version @param {any[]} environments */
const usesOf = (version, environments) =>
  environments.flatMap(({ environment, pointer }) =>
    [
      { environment, role: "stable", of: pointer?.version },
      { environment, role: "canary", of: pointer?.canary?.version },
      { environment, role: "shadow", of: pointer?.shadow },
    ].filter(({ of }) => of === version),
  );

/** The environment that is shown first: production, or else the last. @param {any[]} environments */
const defaultOf = (environments) =>
  environments.find((each) => each.environment === "production") ?? environments.at(-1);

/** @param {any} each @param {boolean} isOpen @param {import("../main.js").Context} context */
function tab({ environment, pointer, is_protected: isProtected }, isOpen, { params: { tenant, model }, query }) {
  const address = link(["t", tenant, "models", model], { ...query, environment, moves: undefined });
  return html`<a class="tab" data-key="tab-${environment}" href="${address}" ${isOpen && html`aria-current="true"`}>
    <b>${environment}</b> ${isProtected && badge("protected")}<span>${servedText(servedBy(pointer))}</span></a
  >`;
}

/**
 * What can be done to a model, to its open environment and to the gates of that.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ isArchived, open }, { params: { tenant, model }, session }) {
  const [ofTenant, root] = [at("tenants", tenant), at("tenants", tenant, "models", model)];
  const { environment, is_protected: isProtected, gates } = open;
  const [trains, admin] = [session.lacks("train"), session.lacks("admin")];
  const removals = gates.map(({ name }) => [
    `remove gate ${name}`,
    {
      label: "Remove",
      of: `the gate ${name}: ${environment} of ${model}`,
      refused: admin,
      what: "Moves that begin from now on need not pass it.",
      run: () => ask("DELETE", `${root}/${at("environments", environment, "gates", name)}`),
      isDestructive: true,
    },
  ]);
  return {
    ...archiving(root, isArchived, {
      of: model,
      refused: trains,
      archives: "Lists leave it and all its versions out until it is restored, or collected some time later.",
      restores: "Lists have it and its versions again.",
    }),
    remove: {
      label: "Delete",
      of: `the model ${model} of ${tenant}`,
      refused: admin,
      what: "All its versions are deleted with their artifacts, permanently, unless something needs one.",
      typed: model,
      run: () => ask("DELETE", root),
      isDestructive: true,
      next: link(["t", tenant, "models"]),
    },
    protect: !isProtected && {
      label: "Protect",
      of: `${environment} of ${tenant}`,
      refused: admin,
      what: `Of all models of ${tenant}, only keys with the scope admin or promote:${environment} move ${environment}.`,
      run: () => ask("PUT", `${ofTenant}/${at("environments", environment)}/protection`),
    },
    unprotect: isProtected && {
      label: "Unprotect",
      of: `${environment} of ${tenant}`,
      refused: admin,
      what: `Of all models of ${tenant}, whoever may promote moves ${environment}.`,
      run: () => ask("DELETE", `${ofTenant}/${at("environments", environment)}/protection`),
      isDestructive: true,
    },
    ...Object.fromEntries(removals),
  };
}

/** @param {any} open @param {any} data @param {import("../main.js").Context} context @param {Record<string, any>} acts */
function environmentView(open, { moves, replicas, newest }, { session, query }, acts) {
  const { environment, pointer, gates } = open;
  const now = servedBy(pointer);
  const refused = session.cannotMove(open) ?? (newest.length ? null : "The model has no version.");
  const possible = Object.entries(MOVES).filter(([, move]) => move.isPossible(now));
  const offered = pointer ? possible : possible.filter(([name]) => name === "promote");
  return html`<div class="card" data-key="environment-${environment}">
    <p class="serving">
      ${environment} serves ${servedText(now)}.
      ${pointer && html`<span class="quiet">Generation ${pointer.generation}, moved by ${pointer.updated_by} <when-time datetime="${pointer.updated_at}"></when-time>.</span>`}
    </p>
    ${pointer?.version && replicasView(replicas)}
    <div class="buttons" role="group" aria-label="Moves of ${environment}">
      ${offered.map(([name, move]) =>
        button({
          action: "move",
          text: `${move.label}…`,
          data: { move: name },
          refused,
          style: move.isDestructive ? "danger" : "",
        }),
      )}${button({ action: "approve", text: "Approve…", refused: session.lacks("approve") ?? (newest.length ? null : "The model has no version.") })}
    </div>
    ${refused && html`<p class="quiet">${refused}</p>`}
    <h3>Gates</h3>
    ${
      gates.length > 0
        ? html`<ul class="rows">
            ${gates.map((gate) => gateRow(gate, acts, session.lacks("admin")))}
          </ul>`
        : html`<p class="quiet">It has none: whatever is promoted is served.</p>`
    }
    <div class="buttons" role="group" aria-label="Rules of ${environment}">
      ${button({ action: "gate", text: "Set a gate…", refused: session.lacks("admin") })}
      ${[acts.protect, acts.unprotect].map((act, index) => act && actButton(["protect", "unprotect"][index], act))}
    </div>
    <h3>Moves</h3>
    ${
      moves.items.length
        ? html`<ol class="timeline">
              ${moves.items.map(moveView)}
            </ol>
            <div class="pager">
              ${query.moves && button({ action: "newest", text: "Newest moves", data: { key: "newest" } })}
              ${moves.next_cursor && button({ action: "older", text: "Older moves", data: { key: "older" } })}
            </div>`
        : empty("Nothing was promoted to it yet.")
    }
  </div>`;
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

/** How the versions are sorted, and what their metrics are compared with. @param {any} data @param {import("../main.js").Context} context */
function arrangement({ newest, reference }, { params: { tenant, model }, query }) {
  const measured = newest.flatMap(({ metrics }) =>
    Object.entries(metrics).flatMap(([split, of]) => Object.keys(of).map((name) => `${split}/${name}`)),
  );
  const names = new Set([...measured.sort().reverse(), ...(query.sort ? [query.sort] : [])]);
  const option = (value, text) =>
    html`<option value="${value}" ${value === (query.sort ?? "") && html`selected`}>${text}</option>`;
  return html`<form class="line" data-action="arrange">
      <div class="field">
        <label for="sort">Sorted by</label>
        <select id="sort" name="sort">
          ${option("", "time, the newest first")}
          ${[...names].map((name) => option(name, `${words(name)}, the best first`))}
        </select>
      </div>
      ${reference && versionField(at("tenants", tenant, "models", model), query.against ?? reference.version, { name: "against", label: "Differences to", withArchived: true })}
      <label class="choice"
        ><input type="checkbox" name="archived" value="1" ${query.archived && html`checked`} /> archived ones,
        too</label
      >
      <button type="submit">Show</button>
    </form>
    ${reference instanceof ApiError && problem(reference)}`;
}

/** @param {any[]} versions @param {any} data @param {(version: string) => string} address @returns {import("../parts/data_table.js").Column[]} */
function versionColumns(versions, { metrics, reference }, address) {
  return [
    { name: "Version", cell: ({ version }) => html`<a href="${address(version)}">${version}</a>` },
    {
      name: "Used by",
      cell: ({ uses, archived_at: archivedAt }) =>
        html`${uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}${archivedAt && badge("archived")}`,
    },
    { name: "Algorithm", cell: ({ algorithm }) => words(algorithm ?? "–") },
    ...metricNames(versions).map((name) => {
      const higher = metrics.find((each) => each.split === SPLIT && each.metric === name)?.higher_is_better ?? null;
      return { name: words(name), isNumber: true, cell: (version) => metricCell(name, version, reference, higher) };
    }),
    {
      name: "Registered",
      cell: ({ created_at: moment, created_by: by }) =>
        html`<when-time datetime="${moment}"></when-time> <span class="quiet">by ${by}</span>`,
    },
  ];
}

/** A metric, and its difference to that of the reference. @param {string} name @param {any} version @param {any} reference @param {boolean | null} higher */
function metricCell(name, version, reference, higher) {
  const [version1, version2] = [reference, version].map((each) => each?.metrics?.[SPLIT]?.[name] ?? null);
  if (version1 === null || version2 === null || version.version === reference.version) return html`${number(version2)}`;
  const difference = version2 - version1;
  const better = higher === null ? null : difference > 0 === higher ? version.version : reference.version;
  return html`<span class="stacked">${metricDiff({ version2, difference, better }, version.version)}</span>`;
}

/** The held-out metrics of some versions, those that most have first. @param {any[]} versions */
function metricNames(versions) {
  const counts = new Map();
  for (const { metrics } of versions)
    for (const name of Object.keys(metrics[SPLIT] ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, MOST_METRICS);
}
