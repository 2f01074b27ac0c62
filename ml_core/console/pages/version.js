// A version: try it, how good it is, what it looks at, where it is served and in which form, where it came from.

import { ask, at, controlUrl, every } from "../core/api.js";
import { bytes, counted, number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { actButton, acting, actsView, archiving, tagChanges, tagLines } from "../parts/acts.js";
import { linesField, pairsOf, textField } from "../parts/fields.js";
import { diagnosticsOf, heldOutView, importancesView } from "../parts/held_out.js";
import { lineageGraph } from "../parts/lineage.js";
import { replicasView } from "../parts/replicas.js";
import { badge, empty, refusal } from "../parts/states.js";
import { facts, table } from "../parts/table.js";
import "../parts/try_it.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ model, version }) => `${model} ${version}`,

  async load({ params: { tenant, model, version }, signal }) {
    const root = at("tenants", tenant, "models", model, "versions", version);
    const [found, lineage, training] = await Promise.all(
      [root, `${root}/lineage`, `${root}/training`].map((path) => ask("GET", path, { signal })),
    );
    const ofTenant = at("tenants", tenant);
    const environments = [...new Set(found.uses.map((use) => use.environment))];
    const inEnvironment = (environment, noun, query = {}) =>
      ask("GET", `${ofTenant}/${at("models", model, "environments", environment)}/${noun}`, { query, signal });
    const replicasOf = (environment) => inEnvironment(environment, "replicas");
    const approvals = async () => {
      const policies = await ask("GET", `${ofTenant}/environments`, { signal });
      const lists = policies.map(({ environment }) => inEnvironment(environment, "approvals", { version: found.version }));
      return (await Promise.all(lists)).flat();
    };
    const [diagnostics, holds, approved, ...replicas] = await Promise.all([
      diagnosticsOf(tenant, found, signal),
      every(`${ofTenant}/holds`, { query: { model }, signal }),
      approvals(),
      ...environments.map((environment) => replicasOf(environment).catch(refusal)),
    ]);
    const served = environments.map((environment, index) => ({ environment, replicas: replicas[index] }));
    const held = holds.filter((hold) => hold.version === found.version);
    return { version: found, lineage, training, diagnostics, served, held, approved };
  },

  view(data, context) {
    const { version, lineage, training, diagnostics, served } = data;
    const { tenant, model } = context.params;
    const { edit, archive, restore, remove } = actsOf(data, context);
    return html`<p class="quiet"><a href="${link(["t", tenant, "models", model])}">${model}</a></p>
      <h1 tabindex="-1">${model} ${version.version}</h1>
      <p>
        ${version.uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}
        ${version.archived_at && badge("archived")} ${words(version.algorithm ?? version.model_type)},
        <when-time datetime="${version.created_at}"></when-time> <span class="quiet">by ${version.created_by}</span>
      </p>
      ${actsView("Version", { edit, archive, restore, remove })}
      ${
        training.notes.length > 0 &&
        html`<ul class="notes">
          ${training.notes.map((note) => html`<li>${note}</li>`)}
        </ul>`
      }
      ${cardView(version.metadata.card)}
      <section>
        <h2>Try it</h2>
        <try-it></try-it>
        <p>
          <a href="${link(["t", tenant, "dataset-prediction"], { model, version: version.version })}"
            >Predict a dataset with it</a
          >
        </p>
      </section>
      <section>
        <h2>Quality</h2>
        ${metricsView(version.metrics, training.baseline)}
        ${diagnostics ? readable(() => heldOutView(diagnostics)) : html`<p class="quiet">Nothing else is recorded of its held-out rows: no training of the platform made it, or its run was deleted.</p>`}
      </section>
      ${diagnostics?.importances?.length > 0 && readable(() => importancesView(diagnostics))}
      <section>
        <h2>Where it is served</h2>
        ${servedView(served, version, link(["t", tenant, "models", model]))}
      </section>
      ${keptView(data, actsOf(data, context))}
      <section>
        <h2>Form that answers</h2>
        ${compilationView(version.compilation)}
      </section>
      <section>
        <h2>Signature</h2>
        ${signatureView(version.signature)}
      </section>
      <section>
        <h2>Hyperparameters</h2>
        ${hyperparametersView(version)}
      </section>
      <section>
        <h2>Lineage</h2>
        ${lineageGraph(lineage, version.uses, tenant, model)} ${provenanceView(lineage)}
      </section>
      <section>
        <h2>Artifact</h2>
        ${artifactView(version, tenant)}
      </section>`;
  },

  connect(main, { version, training }, { params: { tenant, model }, session }) {
    const { inputs, output } = version.signature;
    const refused =
      session.isOperator && session.credential === "key"
        ? html`The prediction plane takes keys of tenants only. Create a key of
            <a href="${link(["t", tenant, "keys"])}">${tenant}</a> with the scope predict and sign in with it, or copy the
            command.`
        : session.lacks("predict");
    const subject = {
      tenant,
      model,
      version: version.version,
      inputs,
      output: output.kind,
      example: training.example,
      refused,
    };
    Object.assign(main.querySelector("try-it") ?? {}, { subject });
  },

  actions: { act: acting(actsOf) },
};

/**
 * What can be done to a version.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ version, held }, { params: { tenant, model }, session }) {
  const root = at("tenants", tenant, "models", model, "versions", version.version);
  const of = `version ${version.version} of ${model}`;
  const refused = session.lacks("train");
  const releases = held.map(({ name }) => [
    `release ${name}`,
    {
      label: "Release",
      of: `the hold ${name} on ${of}`,
      refused: session.lacks("admin"),
      what: "Without a hold it can be deleted and collected, as far as nothing else needs it.",
      run: () => ask("DELETE", `${root}/${at("holds", name)}`),
      isDestructive: true,
    },
  ]);
  return {
    edit: {
      label: "Tags and notes",
      of,
      refused,
      what: "The version itself never changes. A line that is left out removes a tag; a note replaces one of its name.",
      fields: html`${linesField("tags", "Tags", tagLines(version.tags), "team=support")}
      ${linesField("metadata", "Further notes", "", "card=Routes tickets to teams.")}`,
      async run({ tags, metadata }) {
        const body = { tags: tagChanges(version.tags, tags), metadata: pairsOf("metadata", metadata) };
        await ask("PATCH", root, { body });
      },
    },
    hold: {
      label: "Hold",
      of,
      refused,
      what: "While it is held, it can't be deleted or collected. A key with the scope admin releases it.",
      fields: html`${textField("name", "Name")} ${textField("reason", "Reason")}`,
      run: ({ name, reason }) => ask("PUT", `${root}/${at("holds", name)}`, { body: { reason } }),
    },
    ...archiving(root, Boolean(version.archived_at), {
      of,
      refused,
      archives: "Lists leave it out until it is restored, or collected some time later.",
      restores: "Lists have it again.",
    }),
    remove: {
      label: "Delete",
      of,
      refused: session.lacks("admin"),
      what: "It is deleted with its artifact, permanently, unless something needs it. Its name stays taken.",
      run: () => ask("DELETE", root),
      isDestructive: true,
      next: link(["t", tenant, "models", model]),
    },
    ...Object.fromEntries(releases),
  };
}

/** Who approved it, and why it is kept. @param {any} data @param {Record<string, any>} acts */
function keptView({ held, approved }, acts) {
  return html`<section>
    <h2>Approvals and holds</h2>
    ${!approved.length && !held.length && html`<p class="quiet">Nobody approved it, and no hold keeps it.</p>`}
    <ul class="rows">
      ${approved.map(
        ({ environment, approver, reason, at: moment }) =>
          html`<li data-key="approval-${environment}-${approver}">
            ${badge("passed", "approved")} for <b>${environment}</b> by ${approver},
            <when-time datetime="${moment}"></when-time> <span class="quiet">${reason}</span>
          </li>`,
      )}
      ${held.map(
        ({ name, reason, created_by: by, created_at: moment }) =>
          html`<li data-key="hold-${name}">
            ${badge("protected", "held")} <b>${name}</b> by ${by}, <when-time datetime="${moment}"></when-time>
            <span class="quiet">${reason}</span> ${actButton(`release ${name}`, acts[`release ${name}`])}
          </li>`,
      )}
    </ul>
    ${actsView("Holds", { hold: acts.hold })}
  </section>`;
}

/** What is made of a file that a program may have written otherwise. @param {() => ReturnType<typeof html>} view */
function readable(view) {
  try {
    return view();
  } catch {
    return html`<p class="quiet">The file diagnostics.json of its run is not one of a training of the platform.</p>`;
  }
}

/** What its user wrote of the model: a text, or texts by heading. @param {unknown} card */
function cardView(card) {
  if (!card) return html``;
  const texts = typeof card === "object" && !Array.isArray(card) ? card : { about: card };
  // The registry keeps no order of keys.
  const names = Object.keys(texts).sort((a, b) => Number(b === "intended_use") - Number(a === "intended_use"));
  return html`<section>
    <h2>Model card</h2>
    ${names.map(
      (name) =>
        html`<h3>${words(name)}</h3>
          ${[texts[name]].flat().map((text) => html`<p class="prose">${shown(text)}</p>`)}`,
    )}
  </section>`;
}

/** @param {{environment: string, replicas: any}[]} served @param {any} version @param {string} model */
function servedView(served, { version, uses }, model) {
  if (!served.length) return empty(html`No environment serves it. <a href="${model}">Promote it</a> to one.`);
  return html`<ul class="rows">
    ${served.map(({ environment, replicas }) => {
      const roles = uses.filter((use) => use.environment === environment).map(({ role }) => role);
      return html`<li data-key="served-${environment}">
        <b>${environment}</b> ${roles.map((role) => html`${badge(role)} `)}
        ${replicasView(replicas, version)}
      </li>`;
    })}
  </ul>`;
}

/** Which form of the estimator answers, and why. @param {any} compilation */
function compilationView({ answers, reason, form, proof, original_cost: original, compiled_cost: compiled }) {
  const costs = [
    ["original", original],
    ["compiled", compiled],
  ].filter(([, cost]) => cost);
  const columns = [
    { name: "Form", isHead: true, cell: ([name]) => name },
    { name: "1 row", isNumber: true, cell: ([, cost]) => `${number(cost.row_us)} µs` },
    { name: "64 rows", isNumber: true, cell: ([, cost]) => `${number(cost.rows_64_us)} µs` },
    { name: "Memory", isNumber: true, cell: ([, cost]) => bytes(cost.memory_bytes) },
  ];
  return html`<p>The <b>${answers}</b> form answers. ${reason}</p>
    ${costs.length > 0 && table("Cost of each form", columns, costs, ([name]) => `cost-${name}`)}
    ${
      proof &&
      html`<p class="quiet">
        Proof of parity: ${counted(proof.flips, "flip")} and a largest difference of ${number(proof.max_difference)} in
        ${counted(proof.rows, "row")}, and at ${counted(proof.thresholds, "threshold")}, with onnxruntime
        ${proof.runtime}.
      </p>`
    }
    ${
      form &&
      html`<p class="quiet">
        The compiled form has ${bytes(form.size_bytes)} and answers with onnxruntime
        ${form.runtime}${form.max_rows !== null && html`, up to ${counted(form.max_rows, "row")} at once`}. sha256
        <code>${form.digest}</code>
      </p>`
    }`;
}

/** @param {Record<string, Record<string, number | null>>} metrics @param {Record<string, number | null>} baseline */
function metricsView(metrics, baseline) {
  const splits = Object.keys(metrics).sort().reverse();
  const names = [...new Set(splits.flatMap((split) => Object.keys(metrics[split])))].sort();
  if (!names.length) return empty("No metric was recorded.");
  const columns = [
    { name: "Metric", isHead: true, cell: words },
    ...splits.map((split) => ({ name: split, isNumber: true, cell: (name) => number(metrics[split][name]) })),
    { name: "baseline", look: "number quiet", cell: (name) => number(baseline[name]) },
  ];
  return html`${table("Metrics", columns, names, String)}
    <p class="quiet">The baseline is an answer that ignores all columns.</p>`;
}

/** @param {any} signature */
function signatureView({ inputs, output }) {
  const classes = output.classes ?? [];
  const columns = [
    { name: "Column", isHead: true, cell: ({ name }) => name },
    { name: "Kind", cell: ({ kind }) => kind },
    { name: "Missing", cell: ({ nullable }) => (nullable ? "allowed" : "refused") },
    { name: "Seen in training", look: "quiet", cell: ({ categories }) => some(categories) },
  ];
  return html`${table("Input columns", columns, inputs, ({ name }) => name)}
    <p>
      It answers
      ${classes.length ? html`with one of ${counted(classes.length, "class", "classes")}: ${some(classes.map(String))}` : html`with a ${output.kind}`}.
    </p>`;
}

/** @param {string[]} values */
const some = (values) =>
  `${values.slice(0, 12).join(", ")}${values.length > 12 ? `, and ${values.length - 12} more` : ""}`;

/** @param {any} version */
function hyperparametersView({ hyperparameters: given, effective_hyperparameters: effective }) {
  const names = [...new Set([...Object.keys(given), ...Object.keys(effective)])].sort();
  if (!names.length) return empty("None is recorded.");
  const columns = [
    { name: "Name", isHead: true, cell: (name) => name },
    { name: "Given", cell: (name) => name in given && shown(given[name]) },
    { name: "Effective", cell: (name) => name in effective && shown(effective[name]) },
  ];
  return html`<details ${names.length <= 12 && html`open`}>
    <summary>${counted(names.length, "hyperparameter")}</summary>
    ${table("Hyperparameters", columns, names, String)}
  </details>`;
}

/** @param {any} lineage */
function provenanceView(lineage) {
  const code = (value) => value && html`<code>${value}</code>`;
  const libraries = Object.entries(lineage.libraries);
  return html`${facts([
      ["Data as the model saw it", code(lineage.data_digest), "wide"],
      ["Code", code(lineage.code_commit)],
      ["Ancestors", lineage.ancestors.length > 1 && counted(lineage.ancestors.length, "version")],
      ["Descendants", lineage.descendants.length > 0 && counted(lineage.descendants.length, "version")],
      ["Modules", code(lineage.modules.map((each) => `${each.module} ${each.version ?? ""}`).join(", "))],
    ])}
    ${
      libraries.length > 0 &&
      html`<details>
        <summary>${counted(libraries.length, "library", "libraries")}</summary>
        <ul class="rows">
          ${libraries.map(([name, version]) => html`<li>${name} ${version}</li>`)}
        </ul>
      </details>`
    }`;
}

/** @param {any} version @param {string} tenant */
function artifactView({ model_id: model, version, format, size_bytes: size, digest, tags, metadata }, tenant) {
  const notes = Object.entries(metadata).filter(([name]) => name !== "card" && name !== "training");
  const address = controlUrl(`${at("tenants", tenant, "models", model, "versions", version)}/artifact`);
  return html`${facts([
      ["Format", format],
      ["Size", bytes(size)],
      ["sha256", html`<code>${digest}</code>`, "wide"],
      ...[...Object.entries(tags), ...notes].map(([name, value]) => [name, shown(value)]),
    ])}
    <p><a href="${address}" download>Download the artifact</a></p>`;
}
