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

export const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);

export const words = (name) => String(name).replaceAll("_", " ");

export const when = (text) => {
  const date = new Date(text);
  return Number.isNaN(date.getTime())
    ? String(text)
    : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
};

export const REASONS = {
  uncertain: "uncertain",
  several: "several classes possible",
  rejected: "rejected by its user",
  unusual: "unusual image",
  disagreement: "models disagree",
  audit: "random audit",
};

let timer;

export function say(text) {
  const place = document.getElementById("say");
  place.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => (place.textContent = ""), 6000);
}

export function failed(error) {
  return make(
    "div",
    { class: "card", role: "alert" },
    make("p", { class: "bad" }, error.message),
    error.hint ? make("p", { class: "note" }, error.hint) : null,
  );
}
