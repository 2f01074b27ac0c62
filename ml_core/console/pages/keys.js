// The API keys of a tenant, or those of the platform: create one, which is shown once, and revoke one.

import { ask, at } from "../core/api.js";
import { html } from "../core/html.js";
import { showList } from "../parts/data_table.js";
import { openDialog } from "../parts/dialog.js";
import { field } from "../parts/fields.js";
import { badge, button } from "../parts/states.js";

const OF_TENANT = ["predict", "read", "label", "train", "promote", "approve", "admin"];
const OF_PLATFORM = ["read", "admin"];

/** Where the keys are: of the tenant in the address, else of the platform. @param {{tenant?: string}} params */
const pathOf = ({ tenant }) => (tenant ? at("tenants", tenant, "keys") : "platform/keys");

/** @type {import("../main.js").Page} */
export default {
  title: ({ tenant }) => `Keys of ${tenant ?? "the platform"}`,
  everyS: 10,

  async load({ params: { tenant }, signal }) {
    const policies = tenant ? await ask("GET", at("tenants", tenant, "environments"), { signal }) : [];
    return { environments: policies.map(({ environment }) => environment) };
  },

  view: (_, { session }) =>
    html`<h1 tabindex="-1">Keys</h1>
      <div class="buttons">${button({ action: "create", text: "Create a key…", refused: session.lacks("admin") })}</div>
      ${session.lacks("admin") && html`<p class="quiet">${session.lacks("admin")}</p>`}
      <data-table></data-table>`,

  connect(main, _, { params, session, signal }) {
    showList(main, {
      label: "Keys",
      key: (key) => key.key_id,
      load: ({ limit, cursor }) => ask("GET", pathOf(params), { query: { limit, cursor }, signal }),
      none: "There is no key.",
      columns: [
        { name: "Name", cell: (key) => key.name },
        { name: "Id", cell: (key) => html`<code>${key.key_id}</code>` },
        { name: "Scopes", cell: (key) => key.scopes.map((scope) => html`${badge(scope)} `) },
        { name: "Created", cell: (key) => html`<when-time datetime="${key.created_at}"></when-time>` },
        { name: "Revoked", cell: (key) => revocation(key, session.lacks("admin")) },
      ],
    });
  },

  actions: {
    create(_, { environments }, { params, refresh }) {
      const scopes = params.tenant ? [...OF_TENANT, ...environments.map((each) => `promote:${each}`)] : OF_PLATFORM;
      openDialog({
        content: () => ({
          title: `Create a key of ${params.tenant ?? "the platform"}`,
          submit: "Create",
          body: html`${field("name", "Name: the person or program that will hold it", "", html`required maxlength="100"`)}
            <fieldset>
              <legend>Scopes</legend>
              ${scopes.map(
                (scope) => html`<label class="choice"><input type="checkbox" name="scope ${scope}" /> ${scope}</label>`,
              )}
            </fieldset>`,
        }),
        async submit({ name, ...chosen }) {
          const wanted = Object.keys(chosen).map((field) => field.replace("scope ", ""));
          const made = await ask("POST", pathOf(params), { body: { name, scopes: wanted } });
          await refresh();
          showOnce(made);
        },
      });
    },

    revoke(element, _, { params, session, refresh, say }) {
      const { id = "", name = "" } = element.dataset;
      const isOwn = session.principal.endsWith(`key:${id}`);
      openDialog({
        content: () => ({
          title: `Revoke the key ${name}`,
          submit: `Revoke ${name}`,
          isDestructive: true,
          body: html`<p>Programs that use <code>${id}</code> are refused within seconds. A key is never restored.</p>
            ${isOwn && html`<p class="problem">You are signed in with this key: your session ends.</p>`}`,
        }),
        async submit() {
          await ask("POST", `${pathOf(params)}/${at(id)}/revoke`);
          await refresh();
          say(`The key ${name} is revoked.`);
        },
      });
    },
  },
};

/** @param {any} key @param {string | null} refused */
function revocation({ key_id: id, name, revoked_at: revoked }, refused) {
  if (revoked) return html`<span class="quiet">revoked <when-time datetime="${revoked}"></when-time></span>`;
  return button({ action: "revoke", text: "Revoke…", refused, style: "danger", data: { id, name } });
}

/** @param {{key: string, name: string}} made */
function showOnce({ key, name }) {
  openDialog({
    content: () => ({
      title: `The key ${name}`,
      submit: "I have kept it",
      body: html`<p>It is shown only now. Keep it where secrets are kept.</p>
        <pre class="command" tabindex="0">${key}</pre>`,
    }),
    submit: async () => {},
  });
}
