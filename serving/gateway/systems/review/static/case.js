// One image: what there is to see, and what the reader says of it.

import { get, post, query } from "./api.js";
import { REASONS, make, percent, say, when, words } from "./parts.js";
import { Stage } from "./stage.js";
import { filters } from "./queue.js";
import { ended } from "./main.js";

const WHY = ["blurred", "too dark", "too bright", "wrong subject", "covered", "other"];
const LAST = "last";
const draftOf = (id) => `draft:${id}`;

export async function casePage(main, { params: [id] }) {
  const entry = await get(`/review/api/entries/${id}`);
  const names = Object.keys(entry.classes);
  const own = document.getElementById("reader").textContent;
  const state = { chosen: {}, cannot: "", comment: "", focus: names[0] };
  for (const label of entry.labels.filter((one) => one.reader === own)) {
    if (label.value) state.chosen[label.head] = label.value;
    if (label.cannot_grade) state.cannot = label.cannot_grade;
    state.comment = label.comment ?? state.comment;
  }
  Object.assign(state, JSON.parse(sessionStorage.getItem(draftOf(id)) ?? "{}"));
  const keep = () => sessionStorage.setItem(draftOf(id), JSON.stringify(state));

  const stage = new Stage(`Photograph, ${words(entry.task)}`);
  stage.photograph(entry.image);
  const opacity = make("input", { id: "opacity", type: "range", min: "0", max: "1", step: "0.05", value: "0.6", oninput: () => stage.opacity(opacity.value) });
  const explain = make("button", { type: "button", "aria-pressed": "false" }, "What the model looks at");
  let asked = false;
  const toggle = () => {
    if (!asked) stage.explanation(entry.view, entry.overlay);
    asked = true;
    stage.show(!stage.on);
    stage.opacity(opacity.value);
    opacity.disabled = !stage.on;
    explain.setAttribute("aria-pressed", String(stage.on));
  };
  explain.addEventListener("click", toggle);
  stage.shown.addEventListener("error", () => stage.on && (say("This model can't show what it looks at."), toggle()));
  opacity.disabled = true;

  const reason = make("select", { id: "why", onchange: () => ((state.cannot = reason.value), keep(), paint()) }, make("option", { value: "" }, "it can be graded"), WHY.map((text) => make("option", { value: text }, text)));
  const comment = make("textarea", { id: "comment", maxlength: "2000", oninput: () => ((state.comment = comment.value), keep()) });
  comment.value = state.comment;
  if (state.cannot && !WHY.includes(state.cannot)) reason.append(make("option", { value: state.cannot }, state.cannot));
  const save = make("button", { type: "submit", class: "main" }, "Save and go on");
  const problem = make("p", { class: "bad", role: "alert" });
  const heads = names.map((name) => headField(entry, name, state, () => (keep(), paint())));
  const paint = () => {
    reason.value = state.cannot;
    for (const head of heads) head.paint();
    save.disabled = !state.cannot && names.some((name) => !state.chosen[name]);
  };

  const next = async (direction = 1) => {
    const page = await get(`/review/api/queue${query({ ...filters(), limit: 100 })}`);
    const ids = page.items.map((item) => item.id);
    const at = ids.indexOf(id);
    const to = at < 0 ? ids[0] : ids[at + direction];
    if (to) location.hash = `#/case/${to}`;
    else {
      say(direction > 0 ? "That was the last one here." : "That was the first one here.");
      location.hash = "#/queue";
    }
  };
  const guarded = async (work) => {
    problem.textContent = "";
    try {
      await work();
    } catch (error) {
      if (error.ended) return ended();
      problem.textContent = error.hint ? `${error.message} ${error.hint}` : error.message;
      if (error.status === 404) problem.append(" ", make("a", { href: "#/queue" }, "Back to the queue"));
    }
  };
  const saveNow = () =>
    guarded(async () => {
      save.disabled = true;
      try {
        const said = (name) => (state.cannot ? { cannot_grade: state.cannot } : { value: state.chosen[name] });
        const after = await post(`/review/api/entries/${id}/labels`, {
          heads: Object.fromEntries(names.map((name) => [name, said(name)])),
          comment: state.comment || null,
        });
        sessionStorage.removeItem(draftOf(id));
        sessionStorage.setItem(LAST, id);
        say(after.state === "adjudicate" ? "Saved. The readers disagree: a third one decides." : "Saved.");
        await next();
      } finally {
        paint();
      }
    });
  const skipNow = () => guarded(async () => (await post(`/review/api/entries/${id}/skip`), sessionStorage.setItem(LAST, id), say("Skipped."), await next()));
  const undoNow = () =>
    guarded(async () => {
      const last = sessionStorage.getItem(LAST) ?? id;
      await post(`/review/api/entries/${last}/undo`);
      sessionStorage.removeItem(draftOf(last));
      sessionStorage.removeItem(LAST);
      say("Taken back.");
      if (last === id) window.dispatchEvent(new HashChangeEvent("hashchange"));
      else location.hash = `#/case/${last}`;
    });

  const form = make(
    "form",
    { class: "side", onsubmit: (event) => (event.preventDefault(), saveNow()) },
    heads.map((head) => head.element),
    make("div", { class: "card stack" },
      make("div", {}, make("label", { for: "why" }, "Cannot grade, because"), reason),
      make("div", {}, make("label", { for: "comment" }, "Comment"), comment),
      problem,
      make("div", { class: "row" }, save, make("button", { type: "button", onclick: skipNow }, "Skip"), make("button", { type: "button", onclick: undoNow }, "Undo")),
    ),
    facts(entry),
  );
  main.replaceChildren(
    make("h1", {}, words(entry.task), " ", entry.reasons.map((why) => make("span", { class: "tag" }, REASONS[why] ?? why))),
    make("div", { class: "case" },
      make("div", {},
        stage.element,
        make("div", { class: "tools" },
          make("button", { type: "button", onclick: () => stage.zoom(1.5), "aria-label": "Zoom in" }, "+"),
          make("button", { type: "button", onclick: () => stage.zoom(1 / 1.5), "aria-label": "Zoom out" }, "−"),
          make("button", { type: "button", onclick: () => stage.whole() }, "Whole"),
          explain,
          make("label", { for: "opacity" }, "Opacity"),
          opacity,
        ),
        earlier(entry),
      ),
      form,
    ),
  );
  paint();
  main.focus({ preventScroll: true });
  return {
    close: () => stage.close(),
    key(event) {
      const { key } = event;
      const classes = entry.classes[state.focus] ?? [];
      if (/^[1-9]$/.test(key) && classes[key - 1]) {
        state.chosen[state.focus] = classes[key - 1];
        state.cannot = "";
        const following = names[names.indexOf(state.focus) + 1];
        if (following && !state.chosen[following]) state.focus = following;
        keep();
        paint();
      } else if (key === "c") reason.focus();
      else if (key === "s") skipNow();
      else if (key === "u") undoNow();
      else if (key === "n") next(1);
      else if (key === "p") next(-1);
      else if (key === "q") location.hash = "#/queue";
      else if (key === "e") toggle();
      else if (key === "[" || key === "]") {
        opacity.value = String(Number(opacity.value) + (key === "]" ? 0.1 : -0.1));
        stage.opacity(opacity.value);
      } else if (key === "Enter" && !event.target.closest("button, a")) {
        if (!save.disabled) saveNow();
      } else if (key.startsWith("Arrow") && event.target.matches("input")) return false;
      else return stage.key(key);
      return true;
    },
  };
}

function headField(entry, name, state, changed) {
  const said = entry.heads[name];
  const inputs = entry.classes[name].map((value, number) => {
    const input = make("input", { type: "radio", name: `head-${name}`, value, onchange: () => ((state.chosen[name] = value), (state.cannot = ""), changed()), onfocus: () => (state.focus = name) });
    const probability = said.probabilities[value];
    const bar = make("i");
    bar.style.width = `${100 * probability}%`;
    const label = make("label", { class: "choice" },
      input,
      make("span", {}, number < 9 ? make("kbd", { "aria-hidden": "true" }, String(number + 1)) : null, ` ${words(value)}`, value === said.label ? " ◂" : "", said.set.includes(value) && said.set.length > 1 ? make("span", { class: "soft" }, " possible") : ""),
      make("span", { class: "p" }, percent(probability)),
      make("span", { class: "bar", "aria-hidden": "true" }, bar),
    );
    return { input, label };
  });
  const element = make("fieldset", {}, make("legend", {}, words(name), said.uncertain ? make("span", { class: "warn" }, " · uncertain") : ""), inputs.map(({ label }) => label));
  return {
    element,
    paint() {
      for (const { input } of inputs) input.checked = !state.cannot && state.chosen[name] === input.value;
    },
  };
}

function facts(entry) {
  const rows = [
    ["Quality", [entry.quality.verdict, ...entry.quality.reasons].map(words).join(", ")],
    ["Unusual", entry.unusual == null ? "not known" : `more than ${percent(entry.unusual)} of the training images`],
    ["Model", `${entry.model.name} version ${entry.model.version}`],
    ["Size", `${entry.width} × ${entry.height}`],
    ["Received", when(entry.taken_at)],
    ["Case", entry.case_key ?? "–"],
    ["Readers", `${entry.readers_done} of ${entry.readers_needed}`],
  ];
  const labels = entry.labels.map((one) => make("li", {}, `${one.reader}: ${words(one.head)} ${words(one.value ?? `can't be graded (${one.cannot_grade})`)}${one.source === "adjudication" ? " (decides)" : ""}${one.comment ? `, “${one.comment}”` : ""}`));
  return make("section", { class: "card", "aria-label": "About this image" },
    make("dl", { class: "facts" }, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    labels.length ? make("ul", {}, labels) : null,
  );
}

function earlier(entry) {
  if (!entry.earlier.length) return null;
  return make("section", { class: "card", "aria-label": "Earlier scans of this patient" },
    make("h2", {}, "Earlier scans"),
    make("ul", {}, entry.earlier.map((scan) => make("li", {}, `${when(scan.at)}: ${scan.result?.dr_severity ?? scan.status}${scan.visit_type ? ` (${words(scan.visit_type)})` : ""}`))),
  );
}
