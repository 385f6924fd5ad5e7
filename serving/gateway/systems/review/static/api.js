// The gateway's routes. Every error has the server's words; a session that ended is told apart.

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
}

export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: { "x-retiderm-page": "1", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "unreachable", "The gateway can't be reached. Nothing was lost; try again.");
  }
  if (response.status === 204) return null;
  const document = await response.json().catch(() => null);
  if (response.ok) return document;
  const error = document?.error ?? {};
  throw new Refused(response.status, error.code ?? "unknown", error.message ?? `The gateway said ${response.status}.`, error.hint);
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

export const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
};
