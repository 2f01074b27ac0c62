// The rule of a schedule that trains on an alert only, in the words of the API and with its defaults; a test compares both.

import { number } from "../core/format.js";
import { html } from "../core/html.js";
import { numberFields, numbersOf, tickField } from "./fields.js";
import { facts } from "./table.js";

const NUMBERS = {
  days: "Days of the reports, the present one included",
  canary_percent: "Percent of the requests that the new version answers on trial",
  canary_hours: "Hours that it may take to be better; then it is aborted",
  min_labels: "Labels that both versions need before they are compared",
};
const DEFAULTS = { days: 7, canary_percent: 20, canary_hours: 72, min_labels: 200 };
const COLLECT = "Make the labelled rows of these days the next version of the dataset first";

/** All but the environment. */
export const ruleFields = () => html`${numberFields(NUMBERS, DEFAULTS)} ${tickField("collect_labels", COLLECT, false)}`;

/** What was typed into them, as the API takes it. @param {string} environment @param {Record<string, string>} typed */
export const ruleOf = (environment, typed) => ({
  environment,
  ...numbersOf(NUMBERS, typed),
  collect_labels: "collect_labels" in typed,
});

/** @param {any} rule */
export const ruleView = (rule) =>
  facts([
    ["Only on an alert in", rule.environment],
    ...Object.entries(NUMBERS).map(([name, label]) => [label, number(rule[name])]),
    [COLLECT, rule.collect_labels ? "yes" : "no"],
  ]);
