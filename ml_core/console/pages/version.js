// A version: try it, how good it is, what it looks at, how it was made, where it came from.

import { ApiError, ask, at, controlUrl } from "../core/api.js";
import { bytes, counted, number, shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { bars } from "../parts/bars.js";
import { badge, empty } from "../parts/states.js";
import "../parts/try_it.js";

const MOST_IMPORTANCES = 15;

/** @type {import("../main.js").Page} */
export default {
  title: ({ model, version }) => `${model} ${version}`,

  async load({ params: { tenant, model, version }, signal }) {
    const root = at("tenants", tenant, "models", model, "versions", version);
    const [found, lineage, training] = await Promise.all(
      [root, `${root}/lineage`, `${root}/training`].map((path) => ask("GET", path, { signal })),
    );
    return { version: found, lineage, training, diagnostics: await diagnosticsOf(tenant, found, signal) };
  },

  view({ version, lineage, training, diagnostics }, { params: { tenant, model } }) {
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
      <section>
        <h2>Try it</h2>
        <try-it></try-it>
      </section>
      <section>
        <h2>Quality</h2>
        ${metricsView(version.metrics, training.baseline)}
        ${diagnostics?.confusion && confusionView(diagnostics.confusion)}
      </section>
      ${diagnostics?.importances?.length > 0 && importancesView(diagnostics)}
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
        ${lineageView(lineage, tenant, model)}
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
        ? "The prediction plane takes keys of tenants only. Sign in with a key of the tenant to try it."
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

/** What training measured on the held-out rows, which its run has; null if there is no run. @param {string} tenant @param {any} version @param {AbortSignal} signal */
async function diagnosticsOf(tenant, version, signal) {
  if (!version.lineage.run_id) return null;
  try {
    return await ask("GET", `${at("tenants", tenant, "runs", version.lineage.run_id, "files")}/diagnostics.json`, {
      signal,
    });
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null; // the run, or the file, was deleted
    throw error;
  }
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

/** @param {{classes: string[], has_others: boolean, counts: number[][]}} confusion */
function confusionView({ classes, has_others: hasOthers, counts }) {
  const names = hasOthers ? [...classes, "others"] : classes;
  const most = counts.map((row) =>
    Math.max(
      1,
      row.reduce((sum, count) => sum + count, 0),
    ),
  );
  return html`<h3>Confusion</h3>
    <div class="scroll" role="region" tabindex="0" aria-label="Confusion matrix">
      <table class="confusion">
        <thead>
          <tr>
            <th scope="col">true / predicted</th>
            ${names.map((name) => html`<th scope="col" class="number">${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${counts.map(
            (row, truth) =>
              html`<tr data-key="true-${truth}">
                <th scope="row">${names[truth]}</th>
                ${row.map(
                  (count, predicted) =>
                    html`<td
                      class="number heat${Math.round((5 * count) / most[truth])} ${truth === predicted && "right"}"
                    >
                      ${number(count)}
                    </td>`,
                )}
              </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="quiet">
      Held-out rows by their true class and by the predicted one; the shade is the share of the row.
    </p>`;
}

/** @param {any} diagnostics */
function importancesView({ importances, importance_metric: metric }) {
  const values = importances.slice(0, MOST_IMPORTANCES).map((each) => [each.column, each.worse_by]);
  return html`<section>
    <h2>Importances</h2>
    <p class="quiet">How much worse ${words(metric)} becomes when a column's values are permuted among the rows.</p>
    ${bars(values, { label: "Importances", isSigned: values.some(([, value]) => value < 0) })}
  </section>`;
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

/** @param {any} lineage @param {string} tenant @param {string} model */
function lineageView(lineage, tenant, model) {
  const versions = (names) =>
    names.map((name) => html`<a href="${link(["t", tenant, "models", model, "versions", name])}">${name}</a> `);
  const facts = [
    ["Run", lineage.run_id],
    ["Datasets", lineage.datasets.length ? lineage.datasets.join(", ") : lineage.dataset_digest],
    ["Data", lineage.data_digest && html`<code>${lineage.data_digest.slice(0, 16)}…</code>`],
    ["Ancestors", lineage.ancestors.length > 0 && versions(lineage.ancestors)],
    ["Children", lineage.children.length > 0 && versions(lineage.children)],
    ["Code", lineage.code_commit && html`<code>${lineage.code_commit}</code>`],
  ].filter(([, value]) => value);
  const libraries = Object.entries(lineage.libraries);
  return html`<dl class="facts">
      ${facts.map(
        ([term, value]) =>
          html`<div>
            <dt>${term}</dt>
            <dd>${value}</dd>
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
function artifactView({ model_id: model, version, format, size_bytes: size, digest }, tenant) {
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
    </dl>
    <p><a href="${address}" download>Download the artifact</a></p>`;
}
