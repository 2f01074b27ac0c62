// The client of the control API, which answers one level above the console. The session is a cookie that no script reads.

const CONTROL = new URL("../v1/", document.baseURI);
const PREDICTIONS = new URL("/t/", document.baseURI);

/** What the API said when it refused a request; `message` says what to do. */
export class ApiError extends Error {
  /**
   * @param {number} status 0: there was no answer
   * @param {{code: string, message: string, details?: Record<string, any>, action?: Action, request_id?: string}} error
   */
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.details = error.details ?? {};
    this.action = error.action;
    this.requestId = error.request_id;
  }

  /** Whether the same may go well later: there was no answer, no room or no time. */
  get mayPass() {
    return [0, 408, 429].includes(this.status) || this.status >= 500;
  }
}
/** What is said where there is no answer. */
export const unreachable = () =>
  new ApiError(0, { code: "unreachable", message: "The platform does not answer. The page tries again." });

/** @typedef {{operation: string, arguments: Record<string, unknown>}} Action An operation that mends an error. */
/** @typedef {{query?: Record<string, unknown>, body?: unknown, signal?: AbortSignal}} Options */

/**
 * A request to the control API.
 *
 * @param {string} method
 * @param {string} path Below `/v1/`; made by `at`.
 * @param {Options} [options]
 * @returns {Promise<any>} The JSON of the answer; null if it has none.
 * @throws {ApiError}
 */
export function ask(method, path, options = {}) {
  return request(method, new URL(path, CONTROL), options);
}

/**
 * A request to the prediction plane, with the same session.
 *
 * @param {string} path Below `/t/`; made by `at`.
 * @param {unknown} body
 * @param {AbortSignal} [signal]
 */
export function predict(path, body, signal) {
  return request("POST", new URL(path, PREDICTIONS), { body, signal });
}

/**
 * Send a file to the control API, and say how much of it is sent.
 *
 * @param {string} path Below `/v1/`; made by `at`.
 * @param {File | FormData} file
 * @param {string | undefined} type Its media type; a form has its own.
 * @param {(share: number) => void} sent Gets 0 to 1.
 * @param {AbortSignal} signal Aborted when it shall not be sent any more.
 * @returns {Promise<any>}
 */
export function upload(path, file, type, sent, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest(); // fetch does not say how much is sent
    sending.open("POST", new URL(path, CONTROL));
    sending.setRequestHeader("x-mlcore-console", "1");
    if (type) sending.setRequestHeader("content-type", type);
    sending.upload.onprogress = ({ loaded, total }) => sent(loaded / total);
    sending.onload = () => {
      const answer = parsed(sending.responseText);
      if (sending.status < 300) resolve(answer);
      else reject(refusal(sending.status, answer));
    };
    sending.onerror = () =>
      reject(new ApiError(0, { code: "unreachable", message: "The upload was cut off. Try again." }));
    sending.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}

/** @typedef {{id: string, name: string, data: any}} Told */
const SILENT_MOST_S = 15; // the platform says something every five seconds

/**
 * The events of a stream of the control API, until it ends.
 *
 * @param {string} path Below `/v1/`; made by `at`.
 * @param {string | undefined} after The id of the last event that was seen.
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Told, void, void>}
 * @throws {ApiError} Also when nothing comes any more.
 */
export async function* events(path, after, signal) {
  const silent = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), 1000 * SILENT_MOST_S);
  };
  try {
    wait();
    const response = await fetch(new URL(path, CONTROL), {
      headers: after ? { "last-event-id": after } : {},
      signal: AbortSignal.any([signal, silent.signal]),
    });
    if (!response.ok || !response.body) throw refusal(response.status, parsed(await response.text()));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      wait();
      const blocks = (text + piece.value).split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) if (block.includes("\ndata: ")) yield told(block);
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw unreachable();
  } finally {
    clearTimeout(timer);
    silent.abort(); // whoever stops reading closes it
  }
}

/** @param {string} block @returns {Told} */
function told(block) {
  const { id, event: name, data } = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/)));
  return { id, name, data: JSON.parse(data) };
}

/** The address of a path of the prediction plane, for a command to copy. @param {string} path */
export const predictionUrl = (path) => new URL(path, PREDICTIONS).href;

/** The address of a path of the control API, for a link. @param {string} path */
export const controlUrl = (path) => new URL(path, CONTROL).href;

/** A path of names, each as one segment. @param {...(string | number)} names */
export const at = (...names) => names.map((name) => encodeURIComponent(name)).join("/");

/** @param {string} method @param {URL} url @param {Options} options */
async function request(method, url, { query = {}, body, signal }) {
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === null || value === "") continue;
    for (const each of [value].flat()) url.searchParams.append(name, String(each));
  }
  /** @type {Record<string, string>} */
  const headers = { "x-mlcore-console": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(url, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable();
  }
  const answer = parsed(text);
  if (response.ok) return answer;
  throw refusal(response.status, answer);
}

/** @param {number} status @param {any} answer */
function refusal(status, answer) {
  if (status === 401) dispatchEvent(new CustomEvent("signed-out"));
  const other = { code: "unreadable", message: `The server answered ${status}.` };
  return new ApiError(status, answer?.error?.message ? answer.error : other);
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * All items of a list, up to a bound.
 *
 * @param {string} path
 * @param {Options} options
 * @param {number} [most]
 */
export async function every(path, options, most = 1000) {
  const items = [];
  let cursor;
  do {
    const page = await ask("GET", path, { ...options, query: { limit: most, ...options.query, cursor } });
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < most);
  return items;
}
