// A dialog that uploads a file, and says how much of it is sent.

import { upload } from "../core/api.js";
import { bytes, percent } from "../core/format.js";
import { html } from "../core/html.js";
import { openDialog } from "./dialog.js";
import { field } from "./fields.js";

/**
 * @param {object} options
 * @param {string} options.title
 * @param {unknown} options.fields Before that of the file.
 * @param {string} options.label Of the file.
 * @param {string} options.accept Its suffixes.
 * @param {unknown} [options.more] After it.
 * @param {string} options.meanwhile What the platform does when all is sent.
 * @param {(given: Record<string, string>, file: File) => {path: string, body: File | FormData, type?: string}} options.send
 *   Where to, and of which media type; a form has its own.
 * @param {(given: Record<string, string>, made: any) => string} options.next The address that is shown afterwards.
 */
export function openUpload({ title, fields, label, accept, more, meanwhile, send, next }) {
  let sent = 0;
  let size = 0;
  openDialog({
    content: () => ({
      title,
      submit: "Upload",
      body: html`${fields} ${field("file", label, "", html`type="file" required accept="${accept}"`)} ${more}
      ${
        size > 0 &&
        html`<p>
          <progress max="1" value="${sent}" aria-label="Sent"></progress>
          ${sent < 1 ? `${bytes(sent * size)} of ${bytes(size)} sent, ${percent(sent)}` : `Sent. ${meanwhile}`}
        </p>`
      }`,
    }),
    async submit(given, redraw, closed) {
      const file = /** @type {File} */ (/** @type {unknown} */ (given.file));
      const { path, body, type } = send(given, file);
      const show = (share) => {
        sent = share;
        redraw();
      };
      size = file.size;
      show(0);
      const made = await upload(path, body, type, show, closed).finally(() => (size = 0));
      location.hash = next(given, made);
    },
  });
}
