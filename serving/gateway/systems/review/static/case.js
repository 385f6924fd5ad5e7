// One image: what there is to see, and what the reader says of it.

import { get, post, query } from "./api.js";
import { aboutImage, earlierScans, notice, rejections, standing, takesLabel } from "./about.js";
import { CANNOT, asSent, headField, isWhole, ofLabels, whyField } from "./heads.js";
import * as memory from "./memory.js";
import { make, percent, reasonTags, say, words } from "./parts.js";
import { Stage } from "./stage.js";
import { titlesOf } from "./titles.js";
import { undoLast } from "./undo.js";

export async function casePage(place, app, id) {
  const entry = await get(`/review/api/entries/${id}`);
  const names = Object.keys(entry.classes);
  const said = memory.draft(id) ?? ofLabels(entry.labels, app.reader);
  const open = takesLabel(entry, app.reader);
  let current = names[0];
  let busy = false;

  const stage = new Stage(`Photograph, ${words(entry.task)}`, (error) => app.told(error, () => null));
  stage.photograph(entry.image);
  const { tools, toggle, fade } = stageTools(stage, entry, app);

  const problem = make("p", { class: "bad", role: "alert" });
  const save = make("button", { type: "submit", class: "main" }, "Save and go on");
  const comment = make("textarea", { id: "comment", maxlength: "2000", rows: "2", oninput: () => ((said.comment = comment.value), keep()) });
  comment.value = said.comment;
  const keep = () => memory.keepDraft(id, said);
  const changed = () => (keep(), paint());
  const heads = names.map((name) => headField(entry, name, said, changed, () => ((current = name), paint())));
  const why = whyField(said, changed);
  const paint = () => {
    heads.forEach((head, number) => head.paint(names.length > 1 && names[number] === current));
    why.paint();
    save.disabled = busy || !open || !isWhole(said, names);
  };

  // The next one in the list that its reader came from, also when this one is not in it any more.
  const go = async (where, around) => {
    const list = (given) => get(`/review/api/queue${query({ ...memory.wanted(), limit: 1, ...given })}`);
    let found = (await list({ [where]: entry.place })).items[0];
    if (!found && around) found = (await list({})).items.find((one) => one.id !== id);
    if (found) location.hash = `#/case/${found.id}`;
    else {
      say(around ? "That was the last one here." : where === "after" ? "This is the last one here." : "This is the first one here.");
      if (around) location.hash = "#/queue";
    }
  };
  // One thing at a time: a second Enter while the first is on its way is not a second label.
  const guarded = async (work) => {
    if (busy) return;
    busy = true;
    problem.replaceChildren();
    paint();
    try {
      await work();
    } catch (error) {
      app.told(error, () => {
        problem.textContent = error.words;
        if (error.status === 404) problem.append(" ", make("a", { href: "#/queue" }, "Back to the queue"));
        else if (error.status === 409) problem.append(" ", make("button", { type: "button", onclick: () => guarded(() => go("after", true)) }, "Go on"));
        problem.scrollIntoView({ block: "nearest" });
      });
    } finally {
      busy = false;
      paint();
    }
  };
  const saveNow = () =>
    isWhole(said, names) && open && guarded(async () => {
      const path = `/review/api/entries/${id}/labels`;
      const body = asSent(said, names);
      let after;
      try {
        after = await post(path, body);
      } catch (error) {
        if (error.ended) memory.keepUnsent({ id, path, body });
        throw error;
      }
      memory.keepDraft(id, null);
      memory.done(id);
      say(after.state === "adjudicate" ? "Saved. The readers disagree: a third one decides." : "Saved.");
      await go("after", true);
    });
  const skipNow = () => guarded(async () => (await post(`/review/api/entries/${id}/skip`), memory.done(id), say("Skipped."), await go("after", true)));
  const undoNow = () => guarded(() => undoLast(app, id));
  const step = (where) => guarded(() => go(where, false));
  const cannot = () => {
    for (const name of names) said.chosen[name] = CANNOT;
    changed();
    why.focus();
  };
  const pick = (number) => {
    if (why.has(document.activeElement)) {
      if (!why.reasons[number]) return false;
      said.why = why.reasons[number];
    } else {
      const value = entry.classes[current]?.[number];
      if (!value) return false;
      said.chosen[current] = value;
      current = names.slice(names.indexOf(current) + 1).find((name) => !(name in said.chosen)) ?? current;
    }
    changed();
    return true;
  };

  const progress = make("span", { class: "soft number" });
  const told = notice(entry, app.reader);
  const button = (text, work) => make("button", { type: "button", onclick: work }, text);
  place.append(
    make("div", { class: "casehead" },
      make("h1", { "data-title": words(entry.task) }, words(entry.task)),
      make("span", { class: "tags" }, reasonTags(entry.reasons)),
      make("span", { class: "walk" }, progress, button("‹ Previous", () => step("before")), button("Next ›", () => step("after")))),
    told ? make("p", { class: "notice" }, told) : "",
    make("div", { class: "case", "data-case": id },
      make("div", { class: "seen" }, stage.element, tools, rejections(entry), earlierScans(entry, stage)),
      make("form", { class: "side", onsubmit: (event) => (event.preventDefault(), saveNow()) },
        heads.map((head) => head.element),
        why.element,
        make("div", {}, make("label", { for: "comment" }, "Comment"), comment),
        make("div", { class: "actions" }, problem, make("div", { class: "row" }, save, button("Skip", skipNow), button("Undo", undoNow))),
        standing(entry),
        aboutImage(entry))));
  for (const element of open ? [] : place.querySelectorAll("fieldset, textarea")) element.disabled = true;
  paint();
  titlesOf(entry.task).then((found) => heads.forEach((head, number) => head.entitle(found[names[number]] ?? {})));
  ahead(entry, progress).catch((error) => app.told(error, () => null));
  return {
    close: () => stage.close(),
    key(event) {
      const { key, target } = event;
      const keys = { c: () => open && cannot(), s: skipNow, u: undoNow, n: () => step("after"), p: () => step("before"), e: toggle, t: () => comment.focus(), q: () => (location.hash = "#/queue"), "[": () => fade(-0.1), "]": () => fade(0.1) };
      if (/^[1-9]$/.test(key)) return open && pick(key - 1);
      if (keys[key]) keys[key]();
      else if (key === "Enter" && !target.closest("button, a")) saveNow();
      else if (key.startsWith("Arrow") && target.matches("input")) return false;
      else return stage.key(key);
      return true;
    },
  };
}

// How far the readers are, and the next photograph, so that it is there when its turn comes.
async function ahead(entry, progress) {
  const chosen = memory.wanted();
  const page = await get(`/review/api/queue${query({ ...chosen, after: entry.place, limit: 1 })}`);
  const found = page.counts[entry.task] ?? {};
  const all = Object.values(found).reduce((sum, count) => sum + count, 0);
  progress.textContent = `${found.done ?? 0} of ${all} ${chosen.batch_id ? "of the batch " : ""}read`;
  if (page.items[0]) new Image().src = `/review/api/entries/${page.items[0].id}/image`;
}

function stageTools(stage, entry, app) {
  const opacity = make("input", { id: "opacity", type: "range", min: "0", max: "1", step: "0.05", value: "0.6", disabled: true });
  const explain = make("button", { type: "button", "aria-pressed": "false" }, "What the model looks at");
  const problem = make("p", { class: "bad", role: "alert" });
  const paint = () => {
    stage.opacity(opacity.value);
    opacity.setAttribute("aria-valuetext", percent(Number(opacity.value), 0));
    opacity.disabled = !stage.on;
    explain.setAttribute("aria-pressed", String(stage.on));
  };
  const toggle = async () => {
    explain.disabled = true;
    problem.textContent = "";
    try {
      await stage.explain(entry.view, entry.overlay, entry.model.version);
    } catch (error) {
      app.told(error, () => (problem.textContent = error.words ?? "This model can't show what it looks at."));
    } finally {
      explain.disabled = false;
      paint();
    }
  };
  const fade = (by) => {
    if (!stage.on) return;
    opacity.value = String(Number(opacity.value) + by);
    paint();
  };
  opacity.addEventListener("input", paint);
  explain.addEventListener("click", toggle);
  const compared = stage.compare.bind(stage);
  stage.compare = async (...given) => (await compared(...given), paint());
  const tools = make("div", { class: "tools" },
    make("button", { type: "button", onclick: () => stage.zoom(1.5), "aria-label": "Zoom in" }, "+"),
    make("button", { type: "button", onclick: () => stage.zoom(1 / 1.5), "aria-label": "Zoom out" }, "−"),
    make("button", { type: "button", onclick: () => stage.whole() }, "Whole"),
    stage.zoomed,
    explain,
    make("span", { class: "fade" }, make("label", { for: "opacity" }, "Opacity"), opacity),
    problem);
  return { tools, toggle, fade };
}
