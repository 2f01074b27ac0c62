// The gates of an environment: what a version must pass before the environment serves it, and the dialog that sets one.

import { ask, at } from "../core/api.js";
import { shown, words } from "../core/format.js";
import { html } from "../core/html.js";
import { actButton } from "./acts.js";
import { openDialog } from "./dialog.js";
import { field, numberField, numberOf, selectField, textField } from "./fields.js";
import { typeAhead } from "./type_ahead.js";
import { button } from "./states.js";

/** @typedef {ReturnType<typeof html>} Html */
/**
 * @typedef {object} Kind
 * @property {string} what It requires.
 * @property {(root: string, given: Record<string, any>) => Html} fields Of its settings; `root` is the path of the tenant.
 */

/** @type {Record<string, Kind>} */
const KINDS = {
  min_metric: {
    what: "A recorded metric of the version is at least a value, or at most where lower is better.",
    fields: (_, { metric, value, split, higher_is_better: higher }) =>
      html`${textField("metric", "Metric", metric)}
      ${field("value", "Value", value, html`required inputmode="decimal"`)}
      ${field("split", "Split", split ?? "validation")}
      ${selectField(
        "higher_is_better",
        "Which way is better",
        [
          ["", "as the platform knows the metric"],
          ["true", "higher"],
          ["false", "lower"],
        ].map(
          ([each, text]) =>
            html`<option value="${each}" ${each === String(higher ?? "") && html`selected`}>${text}</option>`,
        ),
      )}`,
  },
  not_worse: {
    what: "On the same held-out rows it is not worse than the version that the environment serves by more than a margin.",
    fields: (root, { dataset, target, metric, margin, number, confidence, resamples, seed, max_rows: rows }) =>
      html`${typeAhead("dataset", root, dataset ?? "", { name: "dataset", label: "Dataset of held-out rows" })}
      ${numberField("number", "Its version; none: the newest now", number)}
      ${textField("target", "Column with the truth", target)} ${textField("metric", "Metric", metric)}
      ${field("margin", "Margin, in the unit of the metric", margin, html`required inputmode="decimal"`)}
      ${numberField("confidence", "Confidence", confidence)} ${numberField("resamples", "Resamples", resamples)}
      ${numberField("seed", "Seed", seed)} ${numberField("max_rows", "Rows at most", rows)}`,
  },
  signature_compatible: {
    what: "Rows that clients can send to the version that is served fit it.",
    fields: () => html``,
  },
  digest_verified: { what: "The artifact store has the bytes that were registered.", fields: () => html`` },
  approval: {
    what: "Others than whoever registered it approved it for the environment.",
    fields: (_, { count }) => numberField("count", "People", count ?? 1),
  },
};
const NUMBERS = ["value", "number", "margin", "confidence", "resamples", "seed", "max_rows", "count"];

/** @param {any} gate @param {Record<string, any>} acts @param {string | null} refused */
export function gateRow({ name, kind, settings, created_by: by }, acts, refused) {
  const given = Object.entries(settings).filter(([, value]) => value !== null);
  return html`<li data-key="${name}">
    <b>${name}</b> ${words(kind)} ${given.map(([key, value]) => html`<code>${key}=${shown(value)}</code> `)}<span
      class="quiet"
      >set by ${by}</span
    >
    ${button({ action: "gate", text: "Change…", refused, data: { gate: name } })}
    ${actButton(`remove gate ${name}`, acts[`remove gate ${name}`])}
  </li>`;
}

/**
 * Open the dialog that sets a gate.
 *
 * @param {{tenant: string, model: string, environment: string, gate?: any, done: (name: string) => Promise<void>}} options
 *   gate: the one that is changed.
 */
export function openGate({ tenant, model, environment, gate, done }) {
  const root = at("tenants", tenant);
  let kind = gate?.kind ?? "min_metric";
  openDialog({
    content: () => ({
      title: gate ? `Gate ${gate.name}: ${environment} of ${model}` : `A gate: ${environment} of ${model}`,
      submit: "Set the gate",
      body: html`<p>It applies to moves that begin from now on. One of the same name is replaced.</p>
        ${field("name", "Name", gate?.name, gate ? html`readonly` : html`required`)}
        ${selectField(
          "kind",
          "Kind",
          Object.keys(KINDS).map(
            (each) => html`<option value="${each}" ${each === kind && html`selected`}>${words(each)}</option>`,
          ),
        )}
        <p class="quiet">${KINDS[kind].what}</p>
        <div data-key="settings-${kind}">${KINDS[kind].fields(root, gate?.kind === kind ? gate.settings : {})}</div>`,
    }),
    changed(control, redraw) {
      if (control.name !== "kind") return;
      kind = control.value;
      redraw();
    },
    async submit({ name, kind: chosen, ...typed }) {
      const settings = Object.fromEntries(
        Object.entries(typed)
          .filter(([, value]) => value.trim())
          .map(([key, value]) => [key, valueOf(key, value.trim())]),
      );
      const path = `${root}/${at("models", model, "environments", environment, "gates", name)}`;
      await ask("PUT", path, { body: { kind: chosen, settings } });
      await done(name);
    },
  });
}

/** @param {string} key @param {string} text */
function valueOf(key, text) {
  if (key === "higher_is_better") return text === "true";
  return NUMBERS.includes(key) ? numberOf(text) : text;
}
