// What this tab remembers for its reader: what they typed and didn't send yet, what they chose to look at, what
// they did last. It is kept by the reader's name: on a shared tablet nobody sends what somebody else has entered.

const MOST = 20;
let reader = "";

const name = (key) => `review:${reader}:${key}`;

function read(key, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name(key))) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  if (value === null) sessionStorage.removeItem(name(key));
  else sessionStorage.setItem(name(key), JSON.stringify(value));
}

export const begin = (who) => (reader = who);

// Signing out leaves nothing behind; a session that ends by itself does not come here.
export const forget = () => sessionStorage.clear();

export const draft = (id) => read(`draft:${id}`, null);
export const keepDraft = (id, value) => write(`draft:${id}`, value);

// What was to be sent when the session ended: sent after signing in again.
export const unsent = () => read("unsent", null);
export const keepUnsent = (value) => write("unsent", value);

const CHOSEN = { task: "", state: "waiting", reason: "", batch_id: "" };
export const filters = () => ({ ...CHOSEN, ...read("filters", {}) });
export const keepFilters = (value) => write("filters", value);

// The filters as the list's route takes them. What this reader has read waits for others only.
export const wanted = () => {
  const chosen = filters();
  return { ...chosen, unread: chosen.state === "waiting" };
};

export const done = (id) => write("done", [...read("done", []), id].slice(-MOST));
export const lastDone = () => read("done", []).at(-1) ?? null;
export const dropLast = () => write("done", read("done", []).slice(0, -1));
