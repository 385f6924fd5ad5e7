// The gateway's routes. Every error has the server's words; a session that ended is told apart.

// Longer than the gateway's own limits: it says what took too long.
const PATIENCE_MS = 130_000;

export class Refused extends Error {
  constructor(status, code, message, hint) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }

  get ended() {
    return this.status === 401;
  }

  get words() {
    return this.hint ? `${this.message} ${this.hint}` : this.message;
  }
}

async function ask(method, path, body, signal = AbortSignal.timeout(PATIENCE_MS)) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: { "x-retiderm-page": "1", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      // What is bytes already goes as it is.
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
      signal,
    });
  } catch {
    throw new Refused(0, "unreachable", "The gateway can't be reached.", "Nothing that you entered was lost; try again.");
  }
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error ?? {};
  throw new Refused(response.status, error.code ?? "unknown", error.message ?? `The gateway said ${response.status}.`, error.hint);
}

export async function call(method, path, body) {
  const response = await ask(method, path, body);
  return response.status === 204 ? null : response.json();
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

// A picture as an address of this page's own (an <img> alone could not say why it has none), and which version of
// a model drew it, null where none did.
export async function picture(path) {
  const response = await ask("GET", path);
  return { address: URL.createObjectURL(await response.blob()), version: response.headers.get("x-model-version") };
}

// A file, as long as it takes. One of more than so many bytes is left where it is: null.
export async function file(path, most) {
  const leave = new AbortController();
  const response = await ask("GET", path, undefined, leave.signal);
  if (Number(response.headers.get("content-length")) > most) {
    leave.abort();
    return null;
  }
  try {
    return await response.blob();
  } catch {
    throw new Refused(0, "broken", "The download broke off.", "Try again.");
  }
}

export const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null && value !== false);
  return given.length ? `?${new URLSearchParams(given)}` : "";
};
