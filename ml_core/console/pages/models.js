// The models of a tenant.

import { ApiError, ask, at } from "../core/api.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { choiceField, field, linesField, pairsOf, problemSlot } from "../parts/fields.js";
import { ALGORITHMS } from "../parts/job_form.js";
import { archivedLink, badge, button } from "../parts/states.js";
import { typeAhead } from "../parts/type_ahead.js";
import { openUpload } from "../parts/upload.js";

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Models of ${tenant}`,
  load: async () => null,
  view: (_, { params: { tenant }, query, session }) =>
    html`<h1 tabindex="-1">Models</h1>
      <div class="buttons">
        ${button({ action: "register", text: "Register a file…", refused: session.lacks("train") })}
      </div>
      ${session.lacks("train") && html`<p class="quiet">${session.lacks("train")}</p>`}
      <p><a href="${link(["t", tenant, "versions"])}">Search the versions of all models</a></p>
      ${archivedLink(["t", tenant, "models"], query)}
      <data-table></data-table>`,

  connect(main, _, { params: { tenant }, query, signal }) {
    const page = (model) => link(["t", tenant, "models", model.model_id]);
    const newest = ({ model_id: model, newest_version: version }) =>
      version ? html`<a href="${link(["t", tenant, "models", model, "versions", version])}">${version}</a>` : "–";
    showList(main, {
      label: "Models",
      search: "Search models",
      text: query.q,
      searched: (text) => filter({ q: text }),
      key: (model) => model.model_id,
      load: ({ text: name, ...of }) =>
        ask("GET", at("tenants", tenant, "models"), {
          query: { ...of, name, include_archived: query.archived && true },
          signal,
        }),
      none: html`There is no model. <a href="${link(["t", tenant, "training"])}">Train one.</a>`,
      columns: [
        {
          name: "Model",
          cell: (model) =>
            html`<a href="${page(model)}">${model.model_id}</a> ${model.archived_at && badge("archived")}`,
        },
        { name: "Type", cell: (model) => model.model_type },
        { name: "Versions", isNumber: true, cell: (model) => model.versions },
        { name: "Newest", cell: newest },
        { name: "Created", cell: (model) => html`<when-time datetime="${model.created_at}"></when-time>` },
      ],
    });
  },

  actions: {
    register(_, __, { params: { tenant } }) {
      openUpload({
        title: `Register a version of a model of ${tenant}`,
        fields: typeAhead("model", at("tenants", tenant), "", { name: "model", label: "Model", isNew: true }),
        label: ".skops file of a fitted pipeline",
        accept: ".skops",
        more: html`${choiceField("model_type", "Model type", Object.keys(ALGORITHMS), { none: "that of the model" })}
          <label class="field"
            ><span>A few rows that it was fitted on, without the target, as JSON</span>
            <textarea
              name="sample"
              rows="4"
              spellcheck="false"
              placeholder='[{"age": 30, "city": "Bonn"}]'
            ></textarea></label
          >${problemSlot("sample")}
          <details>
            <summary>Options</summary>
            ${field("version", "Name of the version, in place of the next number")}
            ${field("parent_version", "Version that it is derived from")}
            ${linesField("metrics", "Metrics that were measured", "", "accuracy=0.9")}
            ${linesField("hyperparameters", "Hyperparameters")} ${linesField("metadata", "Notes on the version")}
          </details>`,
        meanwhile: "The platform audits it…",
        send(given, file) {
          const body = new FormData();
          body.append("artifact", file);
          body.append("version", JSON.stringify(recorded(given)));
          return { path: `${at("tenants", tenant, "models", given.model)}/versions`, body };
        },
        next: ({ model }, { version }) => link(["t", tenant, "models", model, "versions", version]),
      });
    },
  },
};

/** What is recorded of an uploaded file. @param {Record<string, string>} given */
function recorded({ version, model_type: type, parent_version: parent, sample, ...lines }) {
  const texts = Object.entries({ version, model_type: type, parent_version: parent });
  const pairs = ["metrics", "hyperparameters", "metadata"].map((name) => [name, pairsOf(name, lines[name]) ?? {}]);
  return {
    ...Object.fromEntries(texts.filter(([, text]) => text.trim())),
    ...Object.fromEntries(pairs),
    ...(sample.trim() && { sample: rowsOf(sample) }),
  };
}

/** @param {string} text */
function rowsOf(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = `The rows are not JSON: ${error instanceof Error ? error.message : error}.`;
    throw new ApiError(400, { code: "invalid_request", message, details: { field: "sample" } });
  }
}
