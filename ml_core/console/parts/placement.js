// Where a tenant is served, and the bounds of cells: in words, and the dialogs in which the platform changes them.

import { ask, at } from "../core/api.js";
import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { openDialog } from "./dialog.js";
import { numberFields, numbersOf, selectField } from "./fields.js";
import { badge } from "./states.js";
import { facts } from "./table.js";

/** @typedef {{min_replicas: number, max_replicas: number, target_ongoing: number}} Bounds */
/** @typedef {Bounds & {tenant_id: string, is_dedicated: boolean, cell: string}} Placement */

const SHARED = "shared";
const FIELDS = {
  min_replicas: "Replicas without load",
  max_replicas: "Replicas under load at most",
  target_ongoing: "Concurrent requests per replica to aim at",
};

/** @param {Bounds} bounds */
export function boundsText({ min_replicas: least, max_replicas: most, target_ongoing: target }) {
  if (least === most) return counted(least, "replica");
  return `${least} to ${counted(most, "replica")}, ${counted(target, "concurrent request")} each`;
}

/** @param {{is_dedicated: boolean}} placement */
export const wantedText = (placement) =>
  placement.is_dedicated ? `a cell of its own with ${boundsText(/** @type {any} */ (placement))}` : "the shared cell";

/** The cell that serves a tenant now, beside the one that is wanted. @param {Placement} placement */
export function servedView({ is_dedicated: isDedicated, min_replicas: least, cell }) {
  const isThere = isDedicated === (cell !== SHARED);
  const why = isDedicated && least === 0 ? "moves, or is not asked" : "moves";
  return html`${cell} ${!isThere && badge("starting", why)}`;
}

/**
 * Open the dialog that moves a tenant, or changes the bounds of its cell.
 *
 * @param {Placement} placement As it is now.
 * @param {(said: string) => Promise<void>} done
 */
export function openPlacement(placement, done) {
  const tenant = placement.tenant_id;
  let isDedicated = !placement.is_dedicated; // somebody who opens it wants a move
  openDialog({
    content: () => ({
      title: `Where ${tenant} is served`,
      submit: isDedicated === placement.is_dedicated ? `Change the cell of ${tenant}` : `Move ${tenant}`,
      refused: isDedicated || placement.is_dedicated ? null : `${tenant} is in the shared cell.`,
      body: html`${selectField(
          "cell",
          "Served by",
          html`<option value="shared" ${!isDedicated && html`selected`}>the shared cell</option>
            <option value="dedicated" ${isDedicated && html`selected`}>a cell of its own</option>`,
        )}
        ${isDedicated && numberFields(FIELDS, placement)}
        ${isDedicated && html`<p class="quiet">0 replicas without load: after 15 minutes without a request the cell ends, and the next request starts it.</p>`}
        ${facts(
          [
            ["Now", wantedText(placement)],
            ["Then", thenText(placement, isDedicated)],
          ],
          "plan",
        )}`,
    }),
    changed(field, redraw) {
      if (field.name !== "cell") return;
      isDedicated = field.value === "dedicated";
      redraw();
    },
    async submit(typed) {
      const body = { is_dedicated: isDedicated, ...(isDedicated && numbersOf(FIELDS, typed)) };
      const placed = await ask("PUT", `${at("tenants", tenant)}/placement`, { body });
      await done(`${tenant} is to be served by ${wantedText(placed)}.`);
    },
  });
}

/** What a placement leads to. @param {Placement} placement @param {boolean} isDedicated */
function thenText({ tenant_id: tenant, is_dedicated: wasDedicated }, isDedicated) {
  if (isDedicated === wasDedicated) return "its cell gets other bounds; it stays where it is";
  const steps = isDedicated
    ? "a cell of its own starts and loads all that the tenant has; then requests go there, and the shared cell lets go of it"
    : "the shared cell loads all that the tenant has; then requests go there, and the tenant's own cell ends";
  return `${steps}. The address stays /t/${tenant}, and no request fails. It takes about half a minute.`;
}

/** Open the dialog that sets the bounds of the shared cell. @param {Bounds} bounds @param {(said: string) => Promise<void>} done */
export function openSharedCell(bounds, done) {
  openDialog({
    content: () => ({
      title: "The bounds of the shared cell",
      submit: "Change the shared cell",
      body: html`<p>
          It serves every tenant without a cell of its own. Replicas are added within seconds and taken away after a
          minute of less load; no request fails. Equal bounds switch autoscaling off.
        </p>
        ${numberFields(FIELDS, bounds)}`,
    }),
    async submit(typed) {
      const set = await ask("PUT", "platform/shared-cell", { body: numbersOf(FIELDS, typed) });
      await done(`The shared cell is to have ${boundsText(set)}.`);
    },
  });
}
