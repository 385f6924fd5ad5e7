import { post } from "./api.js";
import { dialog, make, say, words } from "./parts.js";

const STRATEGIES = {
  margin: "margin: the two likeliest classes are close",
  entropy: "entropy: the answer is spread",
  least_confidence: "least confidence",
  k_center: "k-center: covers what images look like",
  badge: "BADGE: doubtful and unlike each other",
  cluster_margin: "cluster margin: doubtful, from every cluster",
  "class_balanced(margin)": "class balanced: doubtful, rare classes as often",
  "slice_balanced(margin)": "by reason: doubtful, from every reason alike",
  random: "random",
};

// Choose how a batch is drawn, draw it, and hand it on.
export function batchForm(task, tasks, app, drawn) {
  const of = make("select", { id: "batch-task" }, tasks.map((name) => make("option", { value: name, selected: name === task }, words(name))));
  const strategy = make("select", { id: "strategy" }, Object.entries(STRATEGIES).map(([value, text]) => make("option", { value }, text)));
  const size = make("input", { id: "size", type: "number", min: "1", max: "1000", value: "20", required: true });
  const seed = make("input", { id: "seed", type: "number", min: "0", max: "2147483648", value: "0", required: true });
  const two = make("input", { id: "two", type: "checkbox" });
  const problem = make("p", { class: "bad", role: "alert" });
  const draw = make("button", { class: "main" }, "Draw");
  const send = async (event) => {
    event.preventDefault();
    draw.disabled = true;
    problem.textContent = "";
    try {
      const made = await post("/review/api/batches", {
        task: of.value, strategy: strategy.value, size: Number(size.value), seed: Number(seed.value), readers: two.checked ? 2 : 1,
      });
      shown.close();
      say(made.size < Number(size.value) ? `A batch of ${made.size} was drawn: no more waited.` : `A batch of ${made.size} was drawn.`);
      drawn(made);
    } catch (error) {
      app.told(error, () => (problem.textContent = error.words));
      draw.disabled = false;
    }
  };
  const shown = dialog("batch-title", "Draw a batch",
    make("p", { class: "note" }, "From the thousand most urgent that wait and are in no batch yet. The same seed draws the same ones from the same queue."),
    make("form", { class: "stack", onsubmit: send },
      make("div", {}, make("label", { for: "batch-task" }, "Task"), of),
      make("div", {}, make("label", { for: "strategy" }, "Strategy"), strategy),
      make("div", { class: "row" },
        make("div", {}, make("label", { for: "size" }, "How many"), size),
        make("div", {}, make("label", { for: "seed" }, "Seed"), seed)),
      make("label", { class: "check" }, two, " Two readers for each image"),
      problem,
      make("div", { class: "row" }, draw, make("button", { type: "button", onclick: () => shown.close() }, "Cancel"))));
}
