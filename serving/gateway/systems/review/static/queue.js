// What waits: filters, how far the readers are, how well they agree, and the list.

import { get, query } from "./api.js";
import { batchForm } from "./batch.js";
import { exchangeForm } from "./exchange.js";
import * as memory from "./memory.js";
import { REASONS, make, percent, plural, reasonTags, say, when, words } from "./parts.js";
import { titlesOf } from "./titles.js";
import { undoLast } from "./undo.js";

const STATES = { waiting: "waiting", adjudicate: "readers disagree", done: "done", skipped: "skipped" };

export async function queuePage(place, app) {
  const chosen = memory.filters();
  const wanted = memory.wanted();
  const first = await get(`/review/api/queue${query(wanted)}`).catch((error) => {
    // A batch that is gone must not lock its reader out.
    if (error.status !== 404 || !chosen.batch_id) throw error;
    memory.keepFilters({ ...chosen, batch_id: "" });
    return app.refresh();
  });
  if (!first) return null;
  const change = (values) => (memory.keepFilters({ ...chosen, ...values }), app.refresh());
  const tasks = Object.keys(first.counts).sort();
  const list = make("ul", { class: "list", "aria-label": "Cases" });
  const more = make("button", { type: "button", class: "more" }, "Show more");
  let after = first.next;

  const add = (page) => {
    list.append(...page.items.map(line));
    after = page.next;
    more.hidden = !after;
  };
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      const at = list.children.length;
      add(await get(`/review/api/queue${query({ ...wanted, after })}`));
      list.children[at]?.querySelector("a").focus();
    } catch (error) {
      app.told(error, () => say(error.words));
    } finally {
      more.disabled = false;
    }
  });

  const select = (name, label, options) =>
    make("div", {},
      make("label", { for: name }, label),
      make("select", { id: name, onchange: (event) => change({ [name]: event.target.value }) },
        options.map(([value, text]) => make("option", { value, selected: chosen[name] === value }, text))));
  const batches = select("batch_id", "Batch", [["", "all"], ...(chosen.batch_id ? [[chosen.batch_id, "this batch"]] : [])]);
  const agreement = make("div");

  place.replaceChildren(
    make("h1", {}, "Queue"),
    progress(first.counts, chosen, change),
    make("div", { class: "row" },
      select("task", "Task", [["", "all"], ...tasks.map((task) => [task, words(task)])]),
      select("reason", "Reason", [["", "any"], ...Object.entries(REASONS)]),
      batches,
      tasks.length
        ? make("button", { type: "button", onclick: () => batchForm(chosen.task || tasks[0], tasks, app, (made) => change({ task: made.task, batch_id: made.id, state: "waiting", reason: "" })) }, "Draw a batch")
        : null,
      tasks.length
        ? make("button", { type: "button", onclick: () => exchangeForm(chosen.task || tasks[0], tasks, chosen.batch_id, app, app.refresh) }, "Export or import")
        : null,
    ),
    agreement,
    list,
    more,
  );
  add(first);
  if (!first.items.length) list.append(make("li", { class: "card note" }, nothing(first.counts, chosen)));
  const task = chosen.task || (tasks.length === 1 ? tasks[0] : "");
  const quietly = (error) => app.told(error, () => null);
  if (tasks.length) showBatches(batches.querySelector("select"), chosen).catch(quietly);
  if (task) showAgreement(agreement, task).catch(quietly);
  return {
    key(event) {
      if (event.key === "u") undoLast(app);
      else if ((event.key === "Enter" || event.key === "n") && !event.target.closest("a, button")) {
        const link = list.querySelector("a");
        if (link) location.hash = link.hash;
      } else return false;
      return true;
    },
  };
}

// Counts are of the task and batch that were chosen; the states are what the list can show.
function progress(counts, chosen, change) {
  const of = (state) => Object.entries(counts).filter(([task]) => !chosen.task || task === chosen.task).reduce((sum, [, found]) => sum + (found[state] ?? 0), 0);
  const all = Object.keys(STATES).reduce((sum, state) => sum + of(state), 0);
  const states = Object.entries(STATES).map(([state, text]) =>
    make("button", { type: "button", class: "chip", "aria-pressed": String(chosen.state === state), onclick: () => change({ state }) },
      make("b", { class: "number" }, String(of(state))), ` ${text}`));
  return make("div", { class: "progress" },
    make("div", { class: "chips", role: "group", "aria-label": "Show" }, states),
    all
      ? make("label", { class: "done" }, make("progress", { max: all, value: of("done") }), make("span", { class: "number" }, `${of("done")} of ${all} read (${Math.round((100 * of("done")) / all)} %)`))
      : null);
}

function nothing(counts, chosen) {
  const waiting = Object.entries(counts).filter(([task]) => !chosen.task || task === chosen.task).reduce((sum, [, found]) => sum + (found.waiting ?? 0), 0);
  if (chosen.state === "waiting" && chosen.reason) return "Nothing waits for this reason.";
  if (chosen.state === "waiting" && waiting) return `You have read all that waits. ${plural(waiting, "image needs", "images need")} a second reader.`;
  if (chosen.state === "waiting" && chosen.batch_id) return "This batch is read. Choose another one, or all.";
  if (chosen.state === "waiting") return "Nothing waits. Doubtful answers come in as apps ask.";
  return `Nothing is ${chosen.state === "adjudicate" ? "disputed between readers" : STATES[chosen.state]}.`;
}

function line(entry) {
  const labels = make("b", {}, Object.values(entry.labels).map(words).join(", ") || "no answer");
  if (Object.keys(entry.labels).length)
    titlesOf(entry.task).then((found) => (labels.textContent = Object.entries(entry.labels).map(([head, label]) => found[head]?.[label] ?? words(label)).join(", ")));
  return make("li", {},
    make("a", { href: `#/case/${entry.id}` },
      make("span", { class: "what" }, labels, make("span", { class: "soft" }, words(entry.task))),
      make("span", { class: "why" }, reasonTags(entry.reasons), entry.readers_needed > 1 ? make("span", { class: "tag" }, "two readers") : null),
      make("span", { class: "sure" },
        make("span", { class: "number" }, entry.confidence == null ? "" : `${percent(entry.confidence)} sure`),
        make("time", { class: "soft", datetime: entry.created_at }, when(entry.created_at))),
    ));
}

async function showBatches(select, chosen) {
  const page = await get(`/review/api/batches${query({ task: chosen.task, newest: true, limit: 50 })}`);
  const text = (one) => `${when(one.created_at)}: ${one.size} by ${words(one.strategy)}${chosen.task ? "" : `, ${words(one.task)}`}`;
  const options = page.items.map((one) => make("option", { value: one.id, selected: one.id === chosen.batch_id }, text(one)));
  const known = page.items.some((one) => one.id === chosen.batch_id);
  select.replaceChildren(select.options[0], ...(chosen.batch_id && !known ? [select.options[1]] : []), ...options);
}

async function showAgreement(element, task) {
  const heads = await get(`/review/api/agreement${query({ task })}`);
  const sentence = (one) =>
    `${words(one.head)}: κ ${one.kappa == null ? "can't be told" : one.kappa.toFixed(2)}, ${one.equal} of ${plural(one.pairs, "image", "images")} alike`;
  element.replaceChildren(
    make("p", { class: "agreement" },
      make("b", {}, "Agreement of two readers "),
      heads.length ? heads.map(sentence).join("; ") : make("span", { class: "soft" }, "no image of this task was read twice yet"),
      heads.length ? make("span", { class: "soft" }, ". κ (Cohen's kappa) is 1 where they always agree, 0 where it is chance.") : null));
}
