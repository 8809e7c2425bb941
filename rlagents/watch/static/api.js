// Reading from the server: JSON with errors as sentences, ETags, and polling while one looks.

import { notify, settle } from "./notices.js";

const GONE = "The server does not answer; is `rlagents watch` still running? Trying again…";
const PATIENCE_MS = 15000;

/** An answer that is not what was asked for; `status` is 0 if there was no answer at all. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Return the address of something that belongs to a run. */
export function runUrl(run, ...parts) {
  return ["/api/run", run, ...parts].map((part, i) => (i ? encodeURIComponent(part) : part)).join("/");
}

/** Send a request; throw an ApiError unless it is answered well or with 304. */
async function send(url, options) {
  let response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  } catch {
    throw new ApiError(GONE, 0);
  }
  if (response.ok || response.status === 304) return response;
  let message = `The server answered ${response.status} to ${url}.`;
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // no JSON: the sentence above says what is known
  }
  throw new ApiError(message, response.status);
}

/** Return the JSON of an address. */
export async function getJson(url, options = {}) {
  const response = await send(url, { cache: "no-cache", ...options });
  try {
    return await response.json();
  } catch {
    throw new ApiError(`The server's answer to ${url} is broken off.`, 0);
  }
}

/** Something that is read again and again, and transferred only when it has changed. */
export class Resource {
  #url;
  #etag = null;

  constructor(url) {
    this.#url = url;
  }

  /** Return the new value, null if nothing has changed. */
  async read() {
    const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
    const response = await send(this.#url, { cache: "no-store", headers });
    if (response.status === 304) return null;
    let value;
    try {
      value = await response.json();
    } catch {
      throw new ApiError(GONE, 0);
    }
    this.#etag = response.headers.get("ETag");
    return value;
  }
}

/**
 * Call a task now and again and again, while the page is visible.
 *
 * @param {() => Promise<void>} task what it throws is shown until it succeeds
 * @param {() => number} period milliseconds until the next call
 * @param {(error: ApiError) => boolean} onError true if the page has dealt with the error
 * @return {() => void} calls the task at once
 */
export function poll(task, period, onError = () => false) {
  let timer = null;
  let busy = false;
  let again = false;
  async function turn() {
    clearTimeout(timer);
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      await task();
      settle("server");
      settle("answer");
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error);
      if (error.status === 0) notify("server", error.message);
      else if (!onError(error)) notify("answer", error.message);
    }
    busy = false;
    if (document.hidden) return;
    timer = setTimeout(turn, again ? 0 : period());
    again = false;
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) turn();
  });
  turn();
  return turn;
}
