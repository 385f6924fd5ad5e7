// Which page is shown, who is signed in, and the keys that work everywhere.

import { call, get, post } from "./api.js";
import * as memory from "./memory.js";
import { failed, loading, make, say } from "./parts.js";
import { signIn } from "./signin.js";
import { queuePage } from "./queue.js";
import { casePage } from "./case.js";
import { modelsPage } from "./models.js";

const PAGES = [
  [/^#\/queue$/, "queue", queuePage],
  [/^#\/case\/([0-9a-f-]{36})$/, "queue", casePage],
  [/^#\/models$/, "models", modelsPage],
  [/^#\/models\/([a-z0-9_]+)$/, "models", modelsPage],
];
const SLOW_MS = 300;

const main = document.getElementById("main");
let current = null;
let turn = 0;

// What a page is given beside its place.
const app = {
  reader: "",
  refresh: () => show(),
  // What failed is told by the page itself, unless it is that the session has ended.
  told: (error, tell) => (error.ended ? ended() : tell(error)),
  ended,
};

async function show() {
  const mine = ++turn;
  current?.close?.();
  current = null;
  const found = PAGES.map(([form, name, page]) => ({ match: (location.hash || "#/queue").match(form), name, page })).find(({ match }) => match);
  if (!found) {
    location.hash = "#/queue";
    return;
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === found.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const slow = setTimeout(() => mine === turn && main.replaceChildren(loading("Loading …")), SLOW_MS);
  let page;
  const place = make("div");
  try {
    page = await found.page(place, app, ...found.match.slice(1));
  } catch (error) {
    if (mine !== turn) return;
    if (error.ended) return ended();
    place.replaceChildren(make("h1", {}, "This can't be shown"), failed(error), make("p", {}, make("a", { href: "#/queue" }, "Back to the queue")));
  } finally {
    clearTimeout(slow);
  }
  // Somebody who went on meanwhile is not called back.
  if (mine !== turn) return page?.close?.();
  current = page ?? null;
  main.replaceChildren(place);
  document.title = `${place.querySelector("h1")?.dataset.title ?? place.querySelector("h1")?.textContent ?? "Review"} · retiderm review`;
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

// A session that ended: what was typed is kept by its page, and is there again after signing in.
async function ended() {
  turn += 1;
  current?.close?.();
  current = null;
  for (const open of document.querySelectorAll("dialog[open]")) open.close();
  signedIn(null);
  await signIn(main, "Your session has ended. Nothing that you entered was lost: sign in again to go on.");
  await begin();
}

function signedIn(session) {
  document.querySelector("nav").hidden = document.querySelector(".who").hidden = !session;
  document.getElementById("reader").textContent = app.reader = session?.reader ?? "";
  if (session) memory.begin(session.reader);
}

async function begin() {
  try {
    signedIn(await get("/review/api/session"));
  } catch (error) {
    if (!error.ended) {
      main.replaceChildren(failed(error), make("button", { type: "button", onclick: () => location.reload() }, "Try again"));
      return;
    }
    signedIn(null);
    await signIn(main);
    return begin();
  }
  await sendKept();
  await show();
}

// What its reader was sending when the session ended.
async function sendKept() {
  const kept = memory.unsent();
  if (!kept) return;
  memory.keepUnsent(null);
  location.hash = `#/case/${kept.id}`;
  try {
    await post(kept.path, kept.body);
    memory.keepDraft(kept.id, null);
    memory.done(kept.id);
    say("Signed in again. What you had entered is saved.");
  } catch (error) {
    if (error.ended) memory.keepUnsent(kept);
    say(`What you had entered could not be saved: ${error.message}`);
  }
}

document.getElementById("leave").addEventListener("click", async () => {
  try {
    await call("DELETE", "/review/api/session");
  } catch (error) {
    if (!error.ended) return say(`You are still signed in. ${error.message}`);
  }
  memory.forget();
  location.hash = "#/queue";
  location.reload();
});

const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());
const single = document.getElementById("single");
single.checked = localStorage.getItem("keys") !== "off";
single.addEventListener("change", () => localStorage.setItem("keys", single.checked ? "on" : "off"));

const root = document.documentElement;
const kept = localStorage.getItem("theme");
if (kept) root.dataset.theme = kept;
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  say(dark ? "Light colours" : "Dark colours");
});

document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), main.focus()));

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("textarea, select, input:not([type=radio]):not([type=range])");
  if (typing) {
    if (event.key === "Escape") main.focus({ preventScroll: true });
    else if (event.key === "Enter" && event.ctrlKey) current?.key?.(event);
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || (!single.checked && event.key.length === 1)) return;
  if (event.key === "?") help.showModal();
  else if (!current?.key?.(event)) return;
  event.preventDefault();
});

addEventListener("hashchange", show);
begin();
