// <traffic-charts tenant>: requests, errors and latency of the last 15 minutes: of a tenant from its prediction log, without
// the attribute of each cell of the platform. They are asked for every ten seconds, as often as there is something new.

import { ask, at } from "../core/api.js";
import { html, render } from "../core/html.js";
import "./line_chart.js";

const EVERY_MS = 10_000;
const MOST_CELLS = 4;
/** What the log of a tenant can't tell: a label of a metric for each of 10,000 tenants would be too much. */
const OF_TENANT = html`<p class="quiet">
  Counted from the prediction log, which has no requests that were refused or failed. Those are counted by cell on the
  platform's page, and by tenant in the metric <code>mlcore_tenant_requests_total</code> where
  <code>MLCORE_METRICS_PER_TENANT</code> is set.
</p>`;

/** @typedef {Record<string, any> & {at: string}} Point */
/** A chart: its label, and which field of a point is which line. @type {[string, [string, string][]][]} */
const CHARTS = [
  [
    "Requests per second",
    [
      ["requests", "requests_per_s"],
      ["refused", "refused_per_s"],
      ["errors", "errors_per_s"],
    ],
  ],
  [
    "Latency in ms",
    [
      ["median", "p50_ms"],
      ["99th percentile", "p99_ms"],
    ],
  ],
];

class TrafficCharts extends HTMLElement {
  #left = new AbortController();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  connectedCallback() {
    this.#left = new AbortController();
    this.#timer = setInterval(() => document.hidden || this.#load(), EVERY_MS);
    this.#load();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    this.#left.abort();
  }

  async #load() {
    const { signal } = this.#left;
    const tenant = this.getAttribute("tenant");
    try {
      const found = await ask("GET", tenant ? at("tenants", tenant, "prediction-traffic") : "platform/traffic", {
        signal,
      });
      this.#show(tenant ? [{ cell: "", points: found }] : found);
    } catch (error) {
      // What was shown stays; the page says that the platform is away.
      if (!signal.aborted && !this.firstChild) {
        render(this, html`<p class="quiet">Not known: ${error instanceof Error ? error.message : error}</p>`);
      }
    }
  }

  /** @param {{cell: string, points: Point[]}[]} cells */
  #show(cells) {
    const ofTenant = this.hasAttribute("tenant") && OF_TENANT;
    const shown = cells.filter(({ points }) => points.length).slice(0, MOST_CELLS);
    if (!shown.length) {
      return render(
        this,
        html`<p class="state">Nothing was answered${ofTenant && " and logged"} in the last 15 minutes.</p>
          ${ofTenant}`,
      );
    }
    render(
      this,
      html`${shown.map(
        ({ cell }) =>
          html`<section class="traffic" data-key="traffic-${cell}">
            <div class="grid">
              ${CHARTS.map(([label]) => html`<line-chart time label="${cell ? `${cell}: ${label}` : label}"></line-chart>`)}
            </div>
          </section>`,
      )}
      ${cells.length > MOST_CELLS && html`<p class="quiet">The busiest cells are shown; <code>mlcore traffic --platform</code> has more.</p>`}
      ${ofTenant}`,
    );
    const charts = this.querySelectorAll("line-chart");
    shown.forEach(({ points }, row) =>
      CHARTS.forEach(([, lines], column) => {
        const chart = /** @type {any} */ (charts[row * CHARTS.length + column]);
        chart.series = lines
          .filter(([, field]) => points.some((point) => point[field] !== null))
          .map(([name, field]) => ({ name, points: points.map((point) => [Date.parse(point.at), point[field]]) }));
      }),
    );
  }
}

customElements.define("traffic-charts", TrafficCharts);
