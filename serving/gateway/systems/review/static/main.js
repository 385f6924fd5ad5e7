// Which page is shown, who is signed in, and the keys that work everywhere.

import { get, call } from "./api.js";
import { failed, make, say } from "./parts.js";
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

const main = document.getElementById("main");
let current = null;

export async function show() {
  current?.close?.();
  current = null;
  const [path, given = ""] = (location.hash || "#/queue").split("?");
  const found = PAGES.map(([form, name, page]) => ({ match: path.match(form), name, page })).find(({ match }) => match);
  if (!found) {
    location.hash = "#/queue";
    return;
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === found.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    current = await found.page(main, { params: found.match.slice(1), query: new URLSearchParams(given) });
  } catch (error) {
    if (error.ended) return ended();
    main.replaceChildren(failed(error), make("p", {}, make("a", { href: "#/queue" }, "Back to the queue")));
  }
}

// A session that ended: what was typed is kept by its page, and is there again after signing in.
export async function ended() {
  current?.close?.();
  current = null;
  signedIn(null);
  await signIn(main, "Your session has ended. Sign in again: nothing you entered was lost.");
  await begin();
}

function signedIn(session) {
  document.querySelector("nav").hidden = document.querySelector(".who").hidden = !session;
  document.getElementById("reader").textContent = session ? session.reader : "";
}

async function begin() {
  try {
    signedIn(await get("/review/api/session"));
  } catch (error) {
    if (!error.ended) {
      main.replaceChildren(failed(error));
      return;
    }
    signedIn(null);
    await signIn(main);
    return begin();
  }
  await show();
}

document.getElementById("leave").addEventListener("click", async () => {
  await call("DELETE", "/review/api/session").catch(() => null);
  location.hash = "#/queue";
  location.reload();
});

const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());

const root = document.documentElement;
const kept = localStorage.getItem("theme");
if (kept) root.dataset.theme = kept;
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  say(dark ? "Light colours" : "Dark colours");
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const typing = event.target.closest("textarea, select, input:not([type=radio]):not([type=range])");
  if (typing) return;
  if (event.key === "?") help.showModal();
  else if (!current?.key?.(event)) return;
  event.preventDefault();
});

addEventListener("hashchange", show);
begin();
