// The controller's HTTP interface: requests, the token, server-sent events, and whether the
// controller answers at all. Events of `connection`: "down" (detail: the retry in seconds), "up".
// Every request takes the page's AbortSignal: what a page left behind never comes back to it.

const kTokenKey = 'memslot-token';
const kTimeoutMs = 60000;
const kLongestRetryS = 15;
const kTooLong = `The controller took longer than ${kTimeoutMs / 1000} s to answer.`;

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `HTTP status ${status}`);
    this.name = 'ApiError';
    this.status = status;
    this.code = error.code || '';
    this.param = error.param || '';
  }
}

export class ConnectionError extends Error {
  constructor() {
    super('The controller does not answer. The page retries by itself.');
    this.name = 'ConnectionError';
  }
}

export const isAbort = (error) => error?.name === 'AbortError';

// --- the token ---------------------------------------------------------------------------------

// The fragment "#token=..." never reaches a server; it leaves the address bar at once.
export function takeTokenFromAddress() {
  const match = /^#token=([^&]*)/.exec(location.hash);
  if (!match) return false;
  setToken(decodeURIComponent(match[1]));
  history.replaceState(null, '', `${location.pathname}#/bank`);
  return true;
}

export function token() {
  return sessionStorage.getItem(kTokenKey) || '';
}

export function setToken(value) {
  if (value) sessionStorage.setItem(kTokenKey, value.trim());
  else sessionStorage.removeItem(kTokenKey);
}

// Set by the page's frame: shows a field, resolves to whether a token was given.
let askForToken = async () => false;
export function onTokenNeeded(ask) {
  askForToken = ask;
}

// --- the connection ----------------------------------------------------------------------------

class Connection extends EventTarget {
  #down = false;
  #retryS = 1;
  #timer = 0;

  get isDown() {
    return this.#down;
  }

  lost() {
    if (!this.#down) this.#retryS = 1;
    else if (this.#timer) return;  // already waiting
    this.#down = true;
    this.dispatchEvent(new CustomEvent('down', {detail: this.#retryS}));
    this.#timer = setTimeout(() => this.retry(), 1000 * this.#retryS);
    this.#retryS = Math.min(2 * this.#retryS, kLongestRetryS);
  }

  async retry() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    try {
      await fetch('/healthz', {cache: 'no-store', signal: AbortSignal.timeout(5000)});
      this.found();
    } catch {
      this.lost();
    }
  }

  found() {
    if (!this.#down) return;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#down = false;
    this.dispatchEvent(new CustomEvent('up'));
  }
}
export const connection = new Connection();

// --- requests ----------------------------------------------------------------------------------

// `query` leaves out what is empty. Names go through encodeURIComponent.
export function address(parts, query = {}) {
  const path = ['/api/v1', ...parts.map((p) => encodeURIComponent(p))].join('/');
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

async function errorOf(response) {
  const text = await response.text().catch(() => '');
  try {
    const error = JSON.parse(text).error;
    if (error && typeof error === 'object') return new ApiError(response.status, error);
  } catch {
    // Not JSON: something in front of the controller answered.
  }
  return new ApiError(response.status, {message: `${response.status} ${response.statusText}`});
}

async function send(method, path, {body, signal, timeout = kTimeoutMs, quiet = false} = {}) {
  const headers = {};
  const bearer = token();
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  const binary = body instanceof Blob;
  if (body !== undefined) {
    headers['Content-Type'] = binary ? 'application/octet-stream' : 'application/json';
  }
  const signals = [signal, timeout && AbortSignal.timeout(timeout)].filter(Boolean);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined || binary ? body : JSON.stringify(body),
      signal: signals.length ? AbortSignal.any(signals) : undefined,
      cache: 'no-store',
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    connection.lost();
    throw error.name === 'TimeoutError' ? new Error(kTooLong) : new ConnectionError();
  }
  connection.found();
  if (response.ok) return response;
  const error = await errorOf(response);
  const refused = error.status === 401 || error.status === 403;
  if (!refused || quiet || !await askForToken(error)) throw error;
  return send(method, path, {body, signal, timeout, quiet: token() === bearer});
}

export async function get(parts, query, options) {
  return (await send('GET', address(parts, query), options)).json();
}

export async function post(parts, body = {}, {query, ...options} = {}) {
  return (await send('POST', address(parts, query), {body, ...options})).json();
}

export async function remove(parts, options) {
  return (await send('DELETE', address(parts), options)).json();
}

export async function file(parts, options) {
  return (await send('GET', address(parts), {timeout: 0, ...options})).blob();
}

// --- server-sent events ------------------------------------------------------------------------

// A session's number may be above 2^53; as text it keeps every digit. Inside a string of the JSON
// the quotes are escaped, so only the member itself matches.
function parseEvent(data) {
  return JSON.parse(data.replace(/("session":\s*)(\d{16,})/, '$1"$2"'));
}

// The values of `data:` fields in a stream of bytes, one an event (RFC: WHATWG HTML, 9.2.6).
async function* dataOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', data = [];
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      // A CR at the end may be half of a CRLF: it waits for what follows.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (data.length) yield data.join('\n');
          data = [];
        } else if (line.startsWith('data:')) {
          data.push(line.slice(line[5] === ' ' ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Every event as an object; {"type": "error"} becomes an exception. Ending the loop, or aborting
// `signal`, leaves the connection, which cancels what the server does for it.
export async function* events(method, parts, body, signal) {
  const response = await send(method, address(parts), {body, signal, timeout: 0});
  try {
    for await (const data of dataOf(response.body)) {
      if (data === '[DONE]') return;
      const event = parseEvent(data);
      if (event.type === 'error') throw new ApiError(0, event.error || {});
      yield event;
    }
  } catch (error) {
    if (error instanceof TypeError && !signal?.aborted) {  // the stream broke off
      connection.lost();
      throw new ConnectionError();
    }
    throw error;
  }
}
