import { get, post, query } from "./api.js";
import { REASONS, failed, make, percent, say, words } from "./parts.js";
import { ended } from "./main.js";

const KEPT = "queue";
const STATES = { waiting: "waiting", adjudicate: "readers disagree", done: "done", skipped: "skipped" };

// What is shown is remembered for this tab, so that "next" in a case follows the list that its reader came from.
export const filters = () => ({ task: "", state: "waiting", reason: "", batch_id: "", ...JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") });

export async function queuePage(main) {
  const chosen = filters();
  const first = await get(`/review/api/queue${query(chosen)}`);
  const list = make("ul", { class: "list", "aria-label": "Cases" });
  const more = make("button", { type: "button" }, "More");
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
      add(await get(`/review/api/queue${query({ ...chosen, after })}`));
      list.children[at]?.querySelector("a").focus();
    } catch (error) {
      if (error.ended) return ended();
      say(error.message);
    } finally {
      more.disabled = false;
    }
  });

  const again = () => {
    sessionStorage.setItem(KEPT, JSON.stringify(chosen));
    queuePage(main).catch((error) => (error.ended ? ended() : main.replaceChildren(failed(error))));
  };
  const select = (name, label, options) =>
    make(
      "div",
      {},
      make("label", { for: name }, label),
      make(
        "select",
        { id: name, onchange: (event) => ((chosen[name] = event.target.value), again()) },
        options.map(([value, text]) => make("option", { value, selected: chosen[name] === value }, text)),
      ),
    );
  const tasks = Object.keys(first.counts);
  const total = (state) => tasks.reduce((sum, task) => sum + (first.counts[task][state] ?? 0), 0);
  const done = total("done");
  const all = done + total("waiting") + total("adjudicate") + total("skipped");

  main.replaceChildren(
    make("h1", {}, "Queue"),
    make(
      "ul",
      { class: "counts", "aria-label": "Progress" },
      Object.entries(STATES).map(([state, text]) => make("li", {}, make("b", { class: "number" }, String(total(state))), ` ${text}`)),
      all ? make("li", {}, make("span", { class: "number" }, `${Math.round((100 * done) / all)} % read`)) : null,
    ),
    make(
      "div",
      { class: "row" },
      select("task", "Task", [["", "all"], ...tasks.map((task) => [task, words(task)])]),
      select("state", "State", Object.entries(STATES)),
      select("reason", "Reason", [["", "any"], ...Object.entries(REASONS)]),
      chosen.batch_id ? make("button", { type: "button", onclick: () => ((chosen.batch_id = ""), again()) }, "Leave the batch") : null,
      batchForm(chosen, tasks, again),
    ),
    make("div", { class: "stack" }, make("p", {}), list, more),
  );
  add(first);
  if (!first.items.length) list.append(make("li", { class: "card note" }, "Nothing is here. Doubtful answers come in as apps ask."));
  return {
    key(event) {
      if (event.key !== "Enter" && event.key !== "n") return false;
      if (event.target.closest("a, button")) return false;
      const link = list.querySelector("a");
      if (link) location.hash = link.hash;
      return Boolean(link);
    },
  };
}

function line(entry) {
  const labels = Object.values(entry.labels).map(words).join(", ") || "no answer";
  return make(
    "li",
    {},
    make(
      "a",
      { href: `#/case/${entry.id}` },
      make("span", {}, make("b", {}, labels), make("br"), make("span", { class: "soft" }, words(entry.task))),
      make(
        "span",
        { class: "why" },
        entry.reasons.map((reason) => make("span", { class: reason === "rejected" ? "tag strong" : "tag" }, REASONS[reason] ?? reason)),
        entry.readers_needed > 1 ? make("span", { class: "tag" }, "two readers") : null,
      ),
      make("span", { class: "number soft" }, percent(entry.confidence)),
    ),
  );
}

function batchForm(chosen, tasks, again) {
  if (!tasks.length) return null;
  const open = make("button", { type: "button" }, "Draw a batch");
  open.addEventListener("click", () => {
    const strategy = make("select", { id: "strategy" }, ["margin", "entropy", "least_confidence", "k_center", "badge", "cluster_margin", "random"].map((name) => make("option", { value: name }, words(name))));
    const size = make("input", { id: "size", type: "number", min: "1", max: "1000", value: "20" });
    const seed = make("input", { id: "seed", type: "number", min: "0", value: "0" });
    const two = make("input", { id: "two", type: "checkbox" });
    const dialog = make(
      "dialog",
      { "aria-labelledby": "batch-title", onclose: () => dialog.remove() },
      make("h2", { id: "batch-title" }, `A batch of ${words(chosen.task || tasks[0])}`),
      make(
        "form",
        {
          class: "stack",
          onsubmit: async (event) => {
            event.preventDefault();
            try {
              const made = await post("/review/api/batches", {
                task: chosen.task || tasks[0],
                strategy: strategy.value,
                size: Number(size.value),
                seed: Number(seed.value),
                readers: two.checked ? 2 : 1,
              });
              dialog.close();
              say(`A batch of ${made.size} was drawn.`);
              Object.assign(chosen, { batch_id: made.id, state: "waiting", reason: "" });
              again();
            } catch (error) {
              if (error.ended) return ended();
              say(error.message);
            }
          },
        },
        make("div", {}, make("label", { for: "strategy" }, "Strategy"), strategy),
        make("div", {}, make("label", { for: "size" }, "How many"), size),
        make("div", {}, make("label", { for: "seed" }, "Seed"), seed),
        make("label", { class: "choice" }, two, "Two readers for each"),
        make("div", { class: "row" }, make("button", { class: "main" }, "Draw"), make("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
  return open;
}
