// A table of some items, and a list of facts: each value under its name.

import { html } from "../core/html.js";

/** @typedef {ReturnType<typeof html>} Html */
/**
 * @typedef {object} Column
 * @property {Html | string} name
 * @property {(item: any) => unknown} cell
 * @property {boolean} [isNumber]
 * @property {boolean} [isHead] Whether it names the row.
 * @property {string} [look] Classes of its cells.
 */

/**
 * A table, which scrolls sideways where it is too wide.
 *
 * @param {string} label What it shows, for screen readers.
 * @param {Column[]} columns
 * @param {any[]} items
 * @param {(item: any) => string} key
 */
export function table(label, columns, items, key) {
  const style = (column) => column.look ?? (column.isNumber ? "number" : "");
  const cell = (column, item) =>
    column.isHead
      ? html`<th scope="row">${column.cell(item)}</th>`
      : html`<td class="${style(column)}">${column.cell(item)}</td>`;
  return html`<div class="scroll" role="region" tabindex="0" aria-label="${label}">
    <table>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col" class="${style(column)}">${column.name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${items.map(
          (item) =>
            html`<tr data-key="${key(item)}">
              ${columns.map((column) => cell(column, item))}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/**
 * Terms with their values; those without a value are left out.
 *
 * @param {any[][]} pairs Term, value, and a style if it has one.
 * @param {string} [style]
 */
export const facts = (pairs, style = "facts") =>
  html`<dl class="${style}">
    ${pairs
      .filter(([, value]) => ![null, undefined, false, ""].includes(value))
      .map(
        ([term, value, ofItem = ""]) =>
          html`<div class="${ofItem}">
            <dt>${term}</dt>
            <dd>${value}</dd>
          </div>`,
      )}
  </dl>`;
