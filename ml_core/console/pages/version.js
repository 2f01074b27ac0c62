// A version: try it, how good it is, what it looks at, where it is served and in which form, where it came from.

import { ApiError, ask, at, controlUrl } from "../core/api.js";
import { bytes, counted, number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { diagnosticsOf, heldOutView, importancesView } from "../parts/held_out.js";
import { lineageGraph } from "../parts/lineage.js";
import { badge, empty, problem, refusal } from "../parts/states.js";
import "../parts/try_it.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ model, version }) => `${model} ${version}`,

  async load({ params: { tenant, model, version }, signal }) {
    const root = at("tenants", tenant, "models", model, "versions", version);
    const [found, lineage, training] = await Promise.all(
      [root, `${root}/lineage`, `${root}/training`].map((path) => ask("GET", path, { signal })),
    );
    const environments = [...new Set(found.uses.map((use) => use.environment))];
    const replicasOf = (environment) =>
      ask("GET", `${at("tenants", tenant, "models", model, "environments", environment)}/replicas`, { signal });
    const [diagnostics, ...replicas] = await Promise.all([
      diagnosticsOf(tenant, found, signal),
      ...environments.map((environment) => replicasOf(environment).catch(refusal)),
    ]);
    const served = environments.map((environment, index) => ({ environment, replicas: replicas[index] }));
    return { version: found, lineage, training, diagnostics, served };
  },

  view({ version, lineage, training, diagnostics, served }, { params: { tenant, model } }) {
    return html`<p class="quiet"><a href="${link(["t", tenant, "models", model])}">${model}</a></p>
      <h1 tabindex="-1">${model} ${version.version}</h1>
      <p>
        ${version.uses.map((use) => html`${badge(use.role, `${use.environment}: ${use.role}`)} `)}
        ${version.archived_at && badge("archived")} ${words(version.algorithm ?? version.model_type)},
        <when-time datetime="${version.created_at}"></when-time> <span class="quiet">by ${version.created_by}</span>
      </p>
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
};

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
        ${replicas instanceof ApiError ? problem(replicas) : replicasView(replicas, version)}
      </li>`;
    })}
  </ul>`;
}

/** @param {any[]} replicas @param {string} version */
function replicasView(replicas, version) {
  const failed = replicas.filter((each) => each.state === "failed" && each.version === version);
  const loaded = replicas.filter((each) => each.state === "loaded").length;
  return html`<span class="quiet"
      >${replicas.length ? `${loaded} of ${counted(replicas.length, "live replica")} ${loaded === 1 ? "has" : "have"} loaded it.` : "No replica is live."}</span
    >
    ${failed.map(
      ({ replica_id: id, reason, serves }) =>
        html`<p class="problem">
          Replica ${id} could not load it: ${reason}
          ${serves ? `Version ${serves} answers meanwhile.` : "Requests are refused meanwhile."}
        </p>`,
    )}`;
}

/** Which form of the estimator answers, and why. @param {any} compilation */
function compilationView({ answers, reason, form, proof, original_cost: original, compiled_cost: compiled }) {
  const costs = [
    ["original", original],
    ["compiled", compiled],
  ].filter(([, cost]) => cost);
  return html`<p>The <b>${answers}</b> form answers. ${reason}</p>
    ${
      costs.length > 0 &&
      html`<div class="scroll" role="region" tabindex="0" aria-label="Cost of each form">
        <table>
          <thead>
            <tr>
              <th scope="col">Form</th>
              <th scope="col" class="number">1 row</th>
              <th scope="col" class="number">64 rows</th>
              <th scope="col" class="number">Memory</th>
            </tr>
          </thead>
          <tbody>
            ${costs.map(
              ([name, cost]) =>
                html`<tr data-key="cost-${name}">
                  <th scope="row">${name}</th>
                  <td class="number">${number(cost.row_us)} µs</td>
                  <td class="number">${number(cost.rows_64_us)} µs</td>
                  <td class="number">${bytes(cost.memory_bytes)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>`
    }
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
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Metrics">
      <table>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            ${splits.map((split) => html`<th scope="col" class="number">${split}</th>`)}
            <th scope="col" class="number">baseline</th>
          </tr>
        </thead>
        <tbody>
          ${names.map(
            (name) =>
              html`<tr data-key="${name}">
                <th scope="row">${words(name)}</th>
                ${splits.map((split) => html`<td class="number">${number(metrics[split][name])}</td>`)}
                <td class="number quiet">${number(baseline[name])}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="quiet">The baseline is an answer that ignores all columns.</p>`;
}

/** @param {any} signature */
function signatureView({ inputs, output }) {
  const classes = output.classes ?? [];
  return html`<div class="scroll" role="region" tabindex="0" aria-label="Input columns">
      <table>
        <thead>
          <tr>
            <th scope="col">Column</th>
            <th scope="col">Kind</th>
            <th scope="col">Missing</th>
            <th scope="col">Seen in training</th>
          </tr>
        </thead>
        <tbody>
          ${inputs.map(
            (column) =>
              html`<tr data-key="${column.name}">
                <th scope="row">${column.name}</th>
                <td>${column.kind}</td>
                <td>${column.nullable ? "allowed" : "refused"}</td>
                <td class="quiet">${some(column.categories)}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
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
  return html`<details ${names.length <= 12 && html`open`}>
    <summary>${counted(names.length, "hyperparameter")}</summary>
    <div class="scroll" role="region" tabindex="0" aria-label="Hyperparameters">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Given</th>
            <th scope="col">Effective</th>
          </tr>
        </thead>
        <tbody>
          ${names.map(
            (name) =>
              html`<tr data-key="${name}">
                <th scope="row">${name}</th>
                <td>${name in given && shown(given[name])}</td>
                <td>${name in effective && shown(effective[name])}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}

/** @param {any} lineage */
function provenanceView(lineage) {
  const facts = [
    ["Data as the model saw it", lineage.data_digest],
    ["Code", lineage.code_commit],
    ["Ancestors", lineage.ancestors.length > 1 && counted(lineage.ancestors.length, "version")],
    ["Descendants", lineage.descendants.length > 0 && counted(lineage.descendants.length, "version")],
    ["Modules", lineage.modules.map((each) => `${each.module} ${each.version ?? ""}`).join(", ")],
  ].filter(([, value]) => value);
  const libraries = Object.entries(lineage.libraries);
  return html`<dl class="facts">
      ${facts.map(
        ([term, value]) =>
          html`<div>
            <dt>${term}</dt>
            <dd><code>${value}</code></dd>
          </div>`,
      )}
    </dl>
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
  return html`<dl class="facts">
      <div>
        <dt>Format</dt>
        <dd>${format}</dd>
      </div>
      <div>
        <dt>Size</dt>
        <dd>${bytes(size)}</dd>
      </div>
      <div class="wide">
        <dt>sha256</dt>
        <dd><code>${digest}</code></dd>
      </div>
      ${[...Object.entries(tags), ...notes].map(
        ([name, value]) =>
          html`<div data-key="note-${name}">
            <dt>${name}</dt>
            <dd>${shown(value)}</dd>
          </div>`,
      )}
    </dl>
    <p><a href="${address}" download>Download the artifact</a></p>`;
}
