// HTML that is safe by construction: a template escapes every value that is not itself such a template. No other module
// writes HTML; the policy of the server (Trusted Types) makes the browser refuse it.

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const policy = globalThis.trustedTypes?.createPolicy("html", { createHTML: (text) => text });

class Html {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }
}

/**
 * A template: `html`<b>${name}</b>``. Values in attributes need quotes around them. An array is its parts one after the
 * other; null, undefined and false are nothing.
 *
 * @param {TemplateStringsArray} strings
 * @param {...unknown} values
 * @returns {Html}
 */
export function html(strings, ...values) {
  let text = strings[0];
  values.forEach((value, index) => {
    if (/<[^<>]*=\s*$/.test(text)) throw new Error(`An attribute has no quotes: ${text.slice(-40)}`);
    text += rendered(value) + strings[index + 1];
  });
  return new Html(text);
}

/** @param {unknown} value @returns {string} */
function rendered(value) {
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(rendered).join("");
  if (value === null || value === undefined || value === false) return "";
  return String(value).replace(/[&<>"']/g, (character) => ESCAPES[/** @type {keyof ESCAPES} */ (character)]);
}

/** @param {Html} content @returns {DocumentFragment} */
function fragment(content) {
  const template = document.createElement("template");
  template.innerHTML = /** @type {any} */ (policy ? policy.createHTML(content.text) : content.text);
  return template.content;
}

/**
 * Make an element's content that of a template and change only what differs: what has the focus, is typed, scrolled or
 * unfolded stays so. Elements with a `data-key` keep their identity when they move.
 *
 * @param {Element} target
 * @param {Html} content
 */
export function render(target, content) {
  morph(target, fragment(content));
}

/** @param {Element} target @param {ParentNode & Node} fresh */
function morph(target, fresh) {
  const keyed = new Map([...target.children].map((child) => [keyOf(child), child]));
  const kept = new Set([...fresh.children].map(keyOf).filter(Boolean));
  let at = target.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const key = keyOf(wanted);
    const found = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
    // What is gone is removed first: what is moved would lose the focus.
    while (key && found && at && found !== at && !kept.has(keyOf(at))) at = removed(at);
    if (found && found.nodeName === wanted.nodeName) {
      if (found === at) at = at.nextSibling;
      else target.insertBefore(found, at);
      update(found, wanted);
    } else if (at && !key && !keyOf(at)) {
      const replaced = at;
      at = at.nextSibling;
      target.replaceChild(wanted, replaced);
    } else target.insertBefore(wanted, at);
  }
  while (at) at = removed(at);
}

/** Remove a node. @param {ChildNode} node @returns {ChildNode | null} The one after it. */
function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** @param {Node} node */
function keyOf(node) {
  return node instanceof Element ? node.getAttribute("data-key") || node.id : "";
}

/** What somebody may enter, beside what the template gives. @type {Record<string, string[][]>} */
const ENTERED = {
  INPUT: [
    ["value", "defaultValue"],
    ["checked", "defaultChecked"],
  ],
  OPTION: [["selected", "defaultSelected"]],
};

/** @param {Node} old @param {Node} wanted */
function update(old, wanted) {
  if (!(old instanceof Element && wanted instanceof Element)) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return;
  }
  const untouched = (ENTERED[old.nodeName] ?? []).filter(([entry, given]) => old[entry] === old[given]);
  for (const { name } of [...old.attributes]) {
    // Whether it is unfolded is the reader's choice.
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const [entry, given] of untouched) if (old[entry] !== old[given]) Object.assign(old, { [entry]: old[given] });
  const rendersItself = old.nodeName.includes("-");
  if (!rendersItself) morph(old, wanted);
}
