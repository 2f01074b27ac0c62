// Numbers as horizontal bars from a common zero, with each number as text.

import { number } from "../core/format.js";
import { html } from "../core/html.js";

/**
 * @param {[string, number][]} values Name and number.
 * @param {{label: string, text?: (value: number) => string, isSigned?: boolean}} options
 */
export function bars(values, { label, text = number, isSigned = false }) {
  const most = Math.max(...values.map(([, value]) => Math.abs(value)), Number.MIN_VALUE);
  return html`<table class="bars ${isSigned && "signed"}" aria-label="${label}">
    <tbody>
      ${values.map(
        ([name, value]) =>
          html`<tr data-key="${name}">
            <th scope="row">${name}</th>
            <td class="bar">${meter(value / most, isSigned)}</td>
            <td class="number">${isSigned && value > 0 && "+"}${text(value)}</td>
          </tr>`,
      )}
    </tbody>
  </table>`;
}

/** A bar as a picture, because the policy allows no inline styles. @param {number} share -1 to 1 @param {boolean} isSigned */
function meter(share, isSigned) {
  const width = (isSigned ? 50 : 100) * Math.abs(share);
  const start = isSigned ? (share < 0 ? 50 - width : 50) : 0;
  return html`<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
    <rect
      class="${share < 0 ? "less" : "more"}"
      x="${start.toFixed(2)}"
      y="0"
      width="${width.toFixed(2)}"
      height="10"
    ></rect>
    ${isSigned && html`<line x1="50" x2="50" y1="0" y2="10"></line>`}
  </svg>`;
}
