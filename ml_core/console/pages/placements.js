// Which cell serves whom, for operators: the bounds that are wanted beside the replicas that are seen.

import { ask, at } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { link } from "../core/router.js";
import { showList } from "../parts/data_table.js";
import { fieldsOf, textField } from "../parts/fields.js";
import { boundsText, openPlacement, openSharedCell, servedView, wantedText } from "../parts/placement.js";
import { badge, button } from "../parts/states.js";
import { facts } from "../parts/table.js";

/** @type {import("../main.js").Page} */
export default {
  title: () => "Placements",
  everyS: 5,

  async load({ signal }) {
    const [health, bounds] = await Promise.all(
      ["platform", "platform/shared-cell"].map((path) => ask("GET", path, { signal })),
    );
    const replicas = Object.fromEntries(health.cells.map((cell) => [cell.name, cell.replicas]));
    return { replicas, bounds };
  },

  view: ({ replicas, bounds }, { session }) =>
    html`<h1 tabindex="-1">Placements</h1>
      <section>
        <h2>Shared cell</h2>
        ${facts([
          ["Wanted", boundsText(bounds)],
          ["Seen", seenView(replicas.shared)],
        ])}
        <div class="buttons">
          ${button({ action: "bounds", text: "Change the bounds…", refused: session.cannotOperate() })}
        </div>
      </section>
      <section>
        <h2>Tenants that were placed</h2>
        <p class="quiet">All others are in the shared cell.</p>
        <form class="line" data-action="find">
          ${textField("tenant", "Tenant")}
          <button type="submit" ${session.cannotOperate() && html`aria-disabled="true"`}>Place…</button>
        </form>
        ${session.cannotOperate() && html`<p class="quiet">${session.cannotOperate()}</p>`}
        <data-table></data-table>
      </section>`,

  connect(main, { replicas }, { session, signal }) {
    const refused = session.cannotOperate();
    showList(main, {
      label: "Placements",
      key: (placement) => placement.tenant_id,
      load: ({ limit, cursor }) => ask("GET", "placements", { query: { limit, cursor }, signal }),
      none: "No tenant was placed.",
      columns: [
        { name: "Tenant", cell: ({ tenant_id: id }) => html`<a href="${link(["t", id])}">${id}</a>` },
        { name: "Wanted", cell: wantedText },
        { name: "Served by", cell: servedView },
        { name: "Its replicas", cell: ({ tenant_id: id }) => seenView(replicas[`t-${id}`]) },
        {
          name: "Set",
          cell: ({ updated_at: moment, updated_by: by }) =>
            html`<when-time datetime="${moment}"></when-time> <span class="quiet">by ${by}</span>`,
        },
        {
          name: "Change",
          cell: ({ tenant_id: id }) => button({ action: "place", text: "Place…", refused, data: { tenant: id } }),
        },
      ],
    });
  },

  actions: {
    bounds(_, { bounds }, context) {
      openSharedCell(bounds, done(context));
    },
    place: (element, _, context) => place(element.dataset.tenant ?? "", context),
    find(element, _, context) {
      if (context.session.cannotOperate()) return;
      return place(fieldsOf(element).tenant.trim(), context);
    },
  },
};

/** @param {string} tenant @param {import("../main.js").Context} context */
async function place(tenant, context) {
  const { signal } = context;
  openPlacement(await ask("GET", `${at("tenants", tenant)}/placement`, { signal }), done(context));
}

/** @param {import("../main.js").Context} context */
const done =
  ({ refresh, say }) =>
  async (said) => {
    await refresh();
    say(said);
  };

/** The live replicas of a cell, and which generation of the assignment they have applied. @param {any[]} [replicas] */
function seenView(replicas = []) {
  if (!replicas.length) return html`<span class="quiet">none is alive</span>`;
  const generations = [...new Set(replicas.map((replica) => replica.generation))].sort((a, b) => a - b);
  const isBehind = replicas.some((replica) => replica.is_behind);
  const failed = replicas.reduce((sum, replica) => sum + replica.failed, 0);
  return html`${counted(replicas.length, "live replica")}
    <span class="quiet">generation ${generations.join(", ")}</span> ${isBehind && badge("behind")}
    ${failed > 0 && badge("failed", `${counted(failed, "version")} failed to load`)}`;
}
