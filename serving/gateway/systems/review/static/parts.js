// Small things that every page uses. Text is always text: nothing that came from elsewhere becomes markup.

export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export const percent = (value, digits = 1) => (value == null ? "–" : `${(100 * value).toFixed(digits)} %`);

export const words = (name) => String(name).replaceAll("_", " ");

export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

export const when = (text) => {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text) : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
};

export const REASONS = {
  rejected: "rejected by its user",
  disagreement: "models disagree",
  unusual: "unusual image",
  uncertain: "uncertain",
  several: "several classes possible",
  audit: "random audit",
};

// What weighs most comes first.
const ORDER = Object.keys(REASONS);
export const reasonTags = (reasons) =>
  reasons.toSorted((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b)).map((reason) => make("span", { class: reason === "rejected" ? "tag strong" : "tag" }, REASONS[reason] ?? words(reason)));

export const facts = (rows) => make("dl", { class: "facts" }, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));

// How champion and challenger answered the same images; null where they answered none.
export const beside = (one) =>
  one?.images && one.champion && one.challenger
    ? [
        `Both answered ${plural(one.images, "image", "images")}, version ${one.champion} as champion and version ${one.challenger} as challenger, and agree on ${one.agree} (${percent(one.agree / one.images, 0)}).`,
        one.labelled
          ? `Of ${one.labelled} that readers labelled, the champion is right on ${one.champion_right} and the challenger on ${one.challenger_right}.`
          : "Readers have labelled none of them yet.",
      ].join(" ")
    : null;

// Scrolls by itself where it is too wide, and by keys.
export const table = (called, heads, rows) =>
  make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": called },
    make("table", {}, make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, rows)));

let timer;

export function say(text) {
  const place = document.getElementById("say");
  place.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => (place.textContent = ""), 6000);
}

export const loading = (what) => make("p", { class: "card note", role: "status" }, what);

export const failed = (error) =>
  make("div", { class: "card", role: "alert" },
    make("p", { class: "bad" }, error.message),
    error.hint ? make("p", { class: "note" }, error.hint) : null);

// A dialog that is gone when it closes.
export function dialog(id, title, ...children) {
  const made = make("dialog", { "aria-labelledby": id, onclose: () => made.remove() }, make("h2", { id }, title), children);
  document.body.append(made);
  made.showModal();
  return made;
}
