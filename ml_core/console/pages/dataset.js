// A dataset: the columns of a version with what their values look like, how they drifted from another, and its versions.

import { ApiError, ask, at, controlUrl } from "../core/api.js";
import { bytes, counted, number, percent, shown } from "../core/format.js";
import { html } from "../core/html.js";
import { filter, link, turn } from "../core/router.js";
import { acting, actsView, archiving } from "../parts/acts.js";
import { listed, showList } from "../parts/data_table.js";
import { field, fieldsOf } from "../parts/fields.js";
import { badge, problem, refusal } from "../parts/states.js";
import { facts } from "../parts/table.js";
import { changeView, valuesView } from "../parts/values.js";

const FEW = 20; // columns, among which nobody searches
const FORMS = [
  ["training", "Train a model on it"],
  ["search", "Search for hyperparameters"],
  ["dataset-prediction", "Predict it"],
];

/** @type {import("../main.js").Page} */
export default {
  title: ({ dataset }) => dataset,

  async load({ params: { tenant, dataset }, query, signal }) {
    const root = `${at("tenants", tenant, "datasets", dataset)}/versions`;
    const [version, newest] = await Promise.all([
      ask("GET", `${root}/${at(query.number ?? "newest")}`, { signal }),
      ask("GET", root, { query: { limit: 2 }, signal }),
    ]);
    const other = query.with ?? newest.items.find((each) => each.number !== version.number)?.number;
    if (other === undefined) return { version, drift: null };
    const found = await Promise.all([
      ask("GET", `${root}/${at(other)}`, { signal }),
      ask("GET", `${root}/${at(other)}/compare/${at(version.number)}`, { signal }),
    ]).catch(refusal);
    return { version, drift: { other, found } };
  },

  view({ version, drift }, context) {
    const {
      params: { tenant, dataset },
      query,
    } = context;
    return html` <p class="quiet"><a href="${link(["t", tenant, "datasets"])}">Datasets</a></p>
      <h1 tabindex="-1">${version.reference}</h1>
      <p>
        ${counted(version.row_count, "row")}, ${counted(version.column_count, "column")}, ${bytes(version.size_bytes)},
        <when-time datetime="${version.created_at}"></when-time> <span class="quiet">by ${version.created_by}</span>
        ${version.archived_at && badge("archived")}
      </p>
      <p>
        ${FORMS.map(
          ([page, text], index) =>
            html`${index > 0 && " · "}<a
                href="${link(["t", tenant, page], { dataset: query.number ? version.reference : dataset })}"
                >${text}</a
              >`,
        )}
      </p>
      ${actsView("Version of the dataset", actsOf({ version }, context))}
      <section>
        <h2>Columns</h2>
        <data-table data-key="columns"></data-table>
        ${version.profile.sampled_rows < version.row_count && html`<p class="quiet">The profile is of ${number(version.profile.sampled_rows)} sampled rows.</p>`}
      </section>
      ${drift && driftView(drift, version)}
      <section>
        <h2>Versions</h2>
        <data-table data-key="versions"></data-table>
      </section>
      <section>
        <h2>Origin</h2>
        ${facts([
          ...Object.entries(version.source).map(([name, value]) => [name, shown(value)]),
          ["sha256", html`<code>${version.digest}</code>`, "wide"],
        ])}
        <p>
          <a
            href="${controlUrl(`${at("tenants", tenant, "datasets", dataset)}/versions/${version.number}/content`)}"
            download
            >Download the Parquet file</a
          >
        </p>
      </section>`;
  },

  connect(main, { version, drift }, { params: { tenant, dataset }, query, signal }) {
    const columns = {
      label: "Columns",
      search: version.column_count > FEW ? "Search columns" : undefined,
      text: query.column,
      searched: (text) => filter({ column: text }),
      key: (column) => column.name,
      load: listed(version.profile.columns, (column) => column.name),
      none: "It has no column.",
      columns: COLUMNS,
    };
    showList(main, columns, "data-table[data-key=columns]");
    const path = `${at("tenants", tenant, "datasets", dataset)}/versions`;
    const versions = {
      label: "Versions",
      key: (each) => String(each.number),
      load: ({ text: _, ...of }) => ask("GET", path, { query: { ...of, include_archived: true }, signal }),
      none: "It has no version.",
      columns: versionColumns(version.number, (number) => link(["t", tenant, "datasets", dataset], { number })),
    };
    showList(main, versions, "data-table[data-key=versions]");
    if (!drift || drift.found instanceof ApiError) return;
    const [first, compared] = drift.found;
    const drifted = {
      label: "Drift",
      search: compared.columns.length > FEW ? "Search compared columns" : undefined,
      key: (column) => column.name,
      load: listed(compared.columns, (column) => column.name),
      none: "They share no column.",
      columns: driftColumns(profilesOf(first), profilesOf(version)),
    };
    showList(main, drifted, "data-table[data-key=drift]");
  },

  actions: {
    act: acting(actsOf),
    compare: (element) => turn(fieldsOf(element)),
  },
};

/**
 * What can be done to a version of a dataset.
 *
 * @param {any} data @param {import("../main.js").Context} context
 * @returns {Record<string, import("../parts/acts.js").Act | false>}
 */
function actsOf({ version }, { params: { tenant, dataset }, query, session }) {
  const root = at("tenants", tenant, "datasets", dataset, "versions", version.number);
  const of = version.reference;
  return {
    ...archiving(root, Boolean(version.archived_at), {
      of,
      refused: session.lacks("train"),
      archives: "Lists leave it out, and it is not the newest any more, until it is restored, or collected some time later.",
      restores: "Lists have it again.",
      // It is the newest no more, which an address without a number shows.
      next: query.number ? undefined : link(["t", tenant, "datasets", dataset], { number: version.number }),
    }),
    remove: {
      label: "Delete",
      of,
      refused: session.lacks("admin"),
      what: "It is deleted with its table, permanently, unless something needs it.",
      run: () => ask("DELETE", root),
      isDestructive: true,
      next: link(["t", tenant, "datasets"]),
    },
  };
}

/** @param {any} version */
const profilesOf = (version) => new Map(version.profile.columns.map((column) => [column.name, column]));

/** @param {number} missing @param {number} rows */
const shareOf = (missing, rows) => (missing ? percent(missing / rows) : "0");

const COLUMNS = [
  { name: "Column", cell: ({ name }) => html`<b>${name}</b>` },
  { name: "Values", cell: valuesView },
  { name: "Kind", cell: ({ kind }) => kind ?? "–" },
  { name: "Type", cell: ({ type }) => html`<span class="quiet">${type}</span>` },
  { name: "Missing", isNumber: true, cell: ({ missing, count }) => shareOf(missing, count + missing) },
  { name: "Distinct", isNumber: true, cell: ({ distinct }) => number(distinct) },
];

/** @param {number} here @param {(number: string) => string} address */
const versionColumns = (here, address) => [
  {
    name: "Version",
    cell: ({ number: each, reference }) =>
      html`<a href="${address(String(each))}" ${each === here && html`aria-current="true"`}>${reference}</a>`,
  },
  { name: "Rows", isNumber: true, cell: (each) => number(each.row_count) },
  { name: "Columns", isNumber: true, cell: (each) => number(each.column_count) },
  { name: "Size", isNumber: true, cell: (each) => bytes(each.size_bytes) },
  { name: "Registered", cell: (each) => html`<when-time datetime="${each.created_at}"></when-time>` },
  {
    name: "By",
    cell: (each) => html`<span class="quiet">${each.created_by}</span> ${each.archived_at && badge("archived")}`,
  },
];

/** @param {{other: number, found: any}} drift @param {any} version */
function driftView({ other, found }, version) {
  return html`<section>
    <h2>Drift from another version</h2>
    <form class="line" data-action="compare">
      ${field("with", "Compared with version", other, html`type="number" min="1" required`)}
      <button type="submit">Compare</button>
    </form>
    ${found instanceof ApiError ? problem(found) : comparedView(found[0], found[1], version)}
  </section>`;
}

/** @param {any} first @param {any} compared @param {any} version */
function comparedView(first, { same, added, removed, changed, verdict }, version) {
  const parts = [
    ["Added", added],
    ["Removed", removed],
    ["Of another type or kind", changed],
  ].filter(([, names]) => names.length);
  return html`<p>
      ${badge(verdict)} ${version.reference}
      ${same ? html`is the very table of ${first.reference}.` : html`with ${counted(version.row_count, "row")}, against ${first.reference} with ${counted(first.row_count, "row")}.`}
    </p>
    ${parts.map(([word, names]) => html`<p><b>${word}:</b> ${names.slice(0, 20).join(", ")}${names.length > 20 && `, and ${names.length - 20} more`}</p>`)}
    <data-table data-key="drift"></data-table>
    <p class="quiet">
      By their profiles: a column drifted where its population stability index exceeds what chance makes by 0.2, and the
      change is significant among all columns. Bars are ${version.reference}, the line is ${first.reference}.
    </p>`;
}

/** @param {Map<string, any>} before @param {Map<string, any>} now */
const driftColumns = (before, now) => [
  { name: "Column", cell: ({ name }) => html`<b>${name}</b>` },
  { name: "Verdict", cell: ({ verdict }) => badge(verdict) },
  { name: "Values", cell: ({ name }) => changeView(before.get(name), now.get(name)) },
  { name: "PSI", isNumber: true, cell: ({ psi }) => number(psi) },
  { name: "By chance", isNumber: true, cell: (each) => number(each.psi_by_chance) },
  { name: "p, adjusted", isNumber: true, cell: (each) => number(each.adjusted_p_value) },
  {
    name: "Missing",
    isNumber: true,
    cell: ({ missing_before: from, missing_now: to }) => (from === null ? "–" : `${percent(from)} → ${percent(to)}`),
  },
  {
    name: "Note",
    cell: ({ note, unseen }) =>
      html`<span class="quiet">${note ?? (unseen > 0 && `${percent(unseen)} new values`)}</span>`,
  },
];
