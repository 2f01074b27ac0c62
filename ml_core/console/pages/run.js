// A run: what it was started with, what it measured, step after step while it goes on, and the files that it keeps.

import { ask, at, controlUrl } from "../core/api.js";
import { bytes, duration, number, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link } from "../core/router.js";
import { actButton, acting, actsView, tagChanges, tagLines } from "../parts/acts.js";
import { chartsView, curve, drawCharts, isCurve, rangeOf } from "../parts/curves.js";
import { listed, matches, showList } from "../parts/data_table.js";
import { reasonField } from "../parts/dialog.js";
import { linesField } from "../parts/fields.js";
import { parametersOf } from "../parts/parameters.js";
import { badge, empty } from "../parts/states.js";
import { facts } from "../parts/table.js";

const MOST_CHARTS = 12;

/** @type {import("../main.js").Page} */
export default {
  title: ({ run }) => run,
  everyS: ({ run }) => (run.finished_at ? undefined : 2),

  async load({ params: { tenant, run }, query, signal }) {
    const path = at("tenants", tenant, "runs", run);
    const [found, files, parts] = await Promise.all([
      ask("GET", path, { signal }),
      ask("GET", `${path}/files`, { signal }),
      ask("GET", `${at("tenants", tenant)}/runs`, { query: { parent_run_id: run, limit: 1 }, signal }),
    ]);
    const curves = Object.entries(found.metrics).filter(([name, of]) => isCurve(of) && matches(name, query.q));
    /** @type {Map<string, any[]>} Of `train/loss` and `validation/loss`, both in the chart of `loss`. */
    const groups = new Map();
    for (const [name, of] of curves) {
      const label = name.split("/").at(-1) ?? name;
      groups.set(label, [...(groups.get(label) ?? []), [name, of]]);
    }
    const charts = [...groups];
    const drawn = charts.slice(0, MOST_CHARTS).map(async ([label, lines]) => ({
      label,
      series: await Promise.all(
        lines.map(async ([name, of]) => ({ name, points: await curve(path, name, of, rangeOf(query), signal) })),
      ),
    }));
    return {
      run: found,
      files,
      hasParts: parts.items.length > 0,
      charts: await Promise.all(drawn),
      all: charts.length,
    };
  },

  view({ run, files, hasParts, charts, all }, context) {
    const { tenant } = context.params;
    const { tag, cancel, remove, ...ofFiles } = actsOf({ run, files }, context);
    return html`<p class="quiet"><a href="${link(["t", tenant, "runs"])}">Runs</a></p>
      <h1 tabindex="-1">${run.kind} ${run.model_id} ${badge(run.status)}</h1>
      <p class="quiet"><code>${run.run_id}</code></p>
      ${factsView(run, tenant, hasParts)} ${actsView("Run", { cancel, tag, remove })}
      ${
        run.error &&
        html`<section>
          <h2>${run.status === "failed" ? "Why it failed" : "Why it ended"}</h2>
          <pre class="log" tabindex="0" aria-label="Error">${run.error}</pre>
        </section>`
      }
      <section>
        <h2>Curves</h2>
        ${chartsView(charts, all, "No metric has more than one value here.")}
      </section>
      <section>
        <h2>Metrics</h2>
        <data-table></data-table>
      </section>
      <section>
        <h2>Parameters</h2>
        ${pairsView("Parameters", parametersOf(run), "It was started without parameters.")}
      </section>
      <section>
        <h2>Tags</h2>
        ${pairsView("Tags", Object.entries(run.tags), "It has no tag.")}
      </section>
      <section>
        <h2>Files</h2>
        ${filesView(files, tenant, run.run_id, ofFiles)}
      </section>`;
  },

  connect(main, { run, charts }, { query, refresh }) {
    drawCharts(main, charts, query);
    const all = Object.entries(run.metrics);
    showList(main, {
      label: "Metrics",
      search: all.length > 1 ? "Search metrics" : undefined,
      text: query.q,
      searched(text) {
        filter({ q: text });
        refresh();
      },
      key: ([name]) => name,
      load: listed(all, ([name]) => name),
      none: "It logged no metric.",
      columns: [
        { name: "Metric", cell: ([name]) => name },
        { name: "Last", isNumber: true, cell: ([, of]) => number(of.last_value) },
        { name: "Step", isNumber: true, cell: ([, of]) => number(of.last_step) },
        { name: "Lowest", isNumber: true, cell: ([, of]) => number(of.minimum) },
        { name: "Highest", isNumber: true, cell: ([, of]) => number(of.maximum) },
        { name: "Points", isNumber: true, cell: ([, of]) => number(of.points) },
        { name: "Not finite", isNumber: true, cell: ([, of]) => number(of.not_finite) },
      ],
    });
  },

  actions: { act: acting(actsOf) },
};

/**
 * What can be done to a run, and to its files.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ run, files }, { params: { tenant }, session }) {
  const root = at("tenants", tenant, "runs", run.run_id);
  const of = run.run_id;
  const refused = session.lacks("train");
  const removals = files.map(({ name }) => [
    `file ${name}`,
    {
      label: "Delete",
      of: `the file ${name} of ${of}`,
      refused,
      what: "It is deleted permanently.",
      run: () => ask("DELETE", `${root}/files/${at(...name.split("/"))}`),
      isDestructive: true,
    },
  ]);
  return {
    tag: {
      label: "Tags",
      of,
      refused,
      what: "A line that is left out removes a tag.",
      fields: linesField("tags", "Tags", tagLines(run.tags), "team=support"),
      run: ({ tags }) => ask("PATCH", root, { body: { tags: tagChanges(run.tags, tags) } }),
    },
    cancel: !run.finished_at && {
      label: "Cancel",
      of,
      refused,
      what: "It ends as cancelled. If it is of a job, the job is cancelled.",
      fields: reasonField({ name: "error", label: "Reason" }),
      run: ({ error }) => ask("POST", `${root}/end`, { body: { status: "cancelled", error } }),
      isDestructive: true,
    },
    remove: {
      label: "Delete",
      of,
      refused: session.lacks("admin"),
      what: "It is deleted with its metrics and files, permanently. Versions that came of it stay.",
      run: () => ask("DELETE", root),
      isDestructive: true,
      next: link(["t", tenant, "runs"]),
    },
    ...Object.fromEntries(removals),
  };
}

/** @param {any} run @param {string} tenant @param {boolean} hasParts */
function factsView(run, tenant, hasParts) {
  const { job } = run.parameters;
  const version = (reference) => {
    const [model, name] = reference.split("@");
    return html`<a href="${link(["t", tenant, "models", model, "versions", name])}">${model} ${name}</a> `;
  };
  return facts([
    ["Model", html`<a href="${link(["t", tenant, "runs"], { model: run.model_id })}">Runs of ${run.model_id}</a>`],
    ["Versions", run.versions.length > 0 && run.versions.map(version)],
    ["Started", html`<when-time datetime="${run.started_at}"></when-time> by ${run.created_by}`],
    ["Took", run.finished_at && duration((Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000)],
    ["Last sign of life", !run.finished_at && html`<when-time datetime="${run.heartbeat_at}"></when-time>`],
    ["Job", /^job_\w+$/.test(job) && html`<a href="${link(["t", tenant, "jobs", job])}">${job}</a>`],
    [
      "Part of",
      run.parent_run_id && html`<a href="${link(["t", tenant, "runs", run.parent_run_id])}">${run.parent_run_id}</a>`,
    ],
    [
      "Parts",
      hasParts &&
        html`<a href="${link(["t", tenant, "runs"], { parent: run.run_id })}">List</a>,
          <a href="${link(["t", tenant, "runs"], { parent: run.run_id, view: "parameters" })}">by parameters</a>`,
    ],
  ]);
}

/** @param {string} label @param {[string, unknown][]} pairs @param {string} none */
function pairsView(label, pairs, none) {
  if (!pairs.length) return empty(none);
  return html`<div class="scroll" role="region" tabindex="0" aria-label="${label}">
    <table>
      <tbody>
        ${pairs.map(
          ([name, value]) =>
            html`<tr data-key="${label}-${name}">
              <th scope="row">${name}</th>
              <td>${shown(value)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** @param {any[]} files @param {string} tenant @param {string} run @param {Record<string, any>} acts */
function filesView(files, tenant, run, acts) {
  if (!files.length) return empty("It keeps no file.");
  const address = (name) => controlUrl(`${at("tenants", tenant, "runs", run, "files")}/${at(...name.split("/"))}`);
  return html`<ul class="rows">
    ${files.map(
      ({ name, size_bytes: size, created_at: created }) =>
        html`<li data-key="file-${name}">
          <a href="${address(name)}" download="${name.split("/").at(-1)}">${name}</a> ${bytes(size)}
          <when-time datetime="${created}"></when-time> ${actButton(`file ${name}`, acts[`file ${name}`])}
        </li>`,
    )}
  </ul>`;
}
