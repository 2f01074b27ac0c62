// <when-time datetime="2026-01-01T00:00:00Z">: how long ago, in the reader's words; the exact UTC on hover. With the
// attribute `exact`, for what is to come, also when in the reader's zone.

const UNITS = /** @type {[Intl.RelativeTimeFormatUnit, number][]} */ ([
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
]);
const RELATIVE_UP_TO_S = 7 * 86_400;
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const absolute = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat("en", {
  weekday: "short",
  month: "short",
  day: "numeric",
  hour: "numeric",
  minute: "2-digit",
  timeZoneName: "short",
});

/** @type {Set<WhenTime>} */
const shown = new Set();
setInterval(() => shown.forEach((each) => each.show()), 10_000);

class WhenTime extends HTMLElement {
  static observedAttributes = ["datetime"];

  connectedCallback() {
    shown.add(this);
    this.show();
  }

  disconnectedCallback() {
    shown.delete(this);
  }

  attributeChangedCallback() {
    if (this.isConnected) this.show();
  }

  show() {
    const moment = new Date(this.getAttribute("datetime") ?? "");
    if (Number.isNaN(moment.getTime())) return;
    const time = this.querySelector("time") ?? this.appendChild(document.createElement("time"));
    time.dateTime = moment.toISOString();
    time.title = `${moment.toISOString().replace("T", " ").replace("Z", "")} UTC`;
    time.textContent = this.hasAttribute("exact") ? `${exact.format(moment)}, ${away(moment)}` : text(moment);
  }
}

/** @param {Date} moment */
function text(moment) {
  const isNear = Math.abs(moment.getTime() - Date.now()) <= 1000 * RELATIVE_UP_TO_S;
  return isNear ? away(moment) : absolute.format(moment);
}

/** @param {Date} moment */
function away(moment) {
  const seconds = (moment.getTime() - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  return relative.format(Math.round(seconds / size), unit);
}

customElements.define("when-time", WhenTime);
