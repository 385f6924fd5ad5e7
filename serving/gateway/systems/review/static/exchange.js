// Labels out of here and in: the export that datasets are made of, and Label Studio's files.

import { file as fetched, get, post, query } from "./api.js";
import { dialog, make, plural, words } from "./parts.js";

const EXPORT = "/review/api/labels/export";
const STUDIO = "/review/api/label-studio";
// What an import skipped is told in words, and not without end.
const MOST_SKIPPED = 5;
// Of a file that the page takes itself, so that it can say why there is none; a larger one is the browser's.
const MOST_TAKEN = 512 * 2 ** 20;

export function exchangeForm(task, tasks, batch, app, changed) {
  const of = make("select", { id: "exchange-task" }, tasks.map((name) => make("option", { value: name, selected: name === task }, words(name))));
  const images = make("input", { id: "exchange-images", type: "checkbox", checked: true });
  const file = make("input", { id: "exchange-file", type: "file", accept: ".json,application/json", "aria-describedby": "exchange-all" });
  const problem = make("p", { class: "bad", role: "alert" });
  const told = make("p", { class: "good", role: "status" });
  let imported = false;

  // One at a time, and what became of it beneath the buttons.
  const doing = (work) => async () => {
    problem.textContent = told.textContent = "";
    for (const button of buttons) button.disabled = true;
    try {
      told.textContent = await work();
    } catch (error) {
      app.told(error, () => (problem.textContent = error.words ?? error.message));
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  };

  const labels = async () => {
    const name = `labels-${of.value}.zip`;
    const path = `${EXPORT}${query({ task: of.value, images: images.checked ? "yes" : "no" })}`;
    told.textContent = "The labels are being put together. With many images it takes a while.";
    try {
      const found = await fetched(path, MOST_TAKEN);
      if (found === null) {
        save(path, name);
        return "The labels are many: they come as a download that takes a while to begin.";
      }
      keep(found, name);
      return `The labels are in ${name}.`;
    } catch (error) {
      told.textContent = "";
      throw error;
    }
  };

  const studio = (part) => async () => {
    const found = await get(`${STUDIO}${query({ task: of.value, batch_id: batchOf() })}`);
    const [text, type, name] = part === "tasks"
      ? [JSON.stringify(found.tasks), "application/json", `label-studio-${of.value}.json`]
      : [found.config, "application/xml", `label-studio-${of.value}.xml`];
    keep(new Blob([text], { type }), name);
    return part === "tasks" ? `${plural(found.tasks.length, "task is", "tasks are")} in ${name}.` : `The labelling interface is in ${name}.`;
  };

  const take = async () => {
    if (!file.files.length) throw new Error("Choose a file first: a project's export as JSON.");
    const made = await post(`${STUDIO}${query({ task: of.value })}`, without(await file.files[0].text()));
    imported ||= made.entries > 0;
    file.value = "";
    const skipped = made.skipped.slice(0, MOST_SKIPPED).join("; ") + (made.skipped.length > MOST_SKIPPED ? "; …" : "");
    return `${plural(made.entries, "reading was", "readings were")} imported.${skipped ? ` Without a label: ${skipped}.` : ""}`;
  };

  const batchOf = () => (of.value === task ? batch : "");
  const button = (text, work) => make("button", { type: "button", onclick: doing(work) }, text);
  const buttons = [
    button("Labels (zip)", labels),
    button("Tasks (JSON)", studio("tasks")),
    button("Interface (XML)", studio("config")),
    button("Import", take),
  ];
  const shown = dialog("exchange-title", "Export and import",
    make("div", { class: "stack" },
      make("div", {}, make("label", { for: "exchange-task" }, "Task"), of),
      make("section", { "aria-labelledby": "exchange-labels" },
        make("h3", { id: "exchange-labels" }, "Labels for the next dataset"),
        make("label", { class: "check" }, images, " With the photographs"),
        make("div", { class: "row" }, buttons[0])),
      make("section", { "aria-labelledby": "exchange-studio" },
        make("h3", { id: "exchange-studio" }, "Label Studio"),
        make("p", { class: "note" }, batch ? "What waits in the batch that is chosen, with the model's answers. " : "What waits, with the model's answers. ",
          "The photographs are inside; a project needs the interface too."),
        make("div", { class: "row" }, buttons.slice(1, 3)),
        make("label", { for: "exchange-file" }, "A project's export (JSON)"),
        make("div", { class: "row" }, file, buttons[3]),
        make("p", { class: "note", id: "exchange-all" }, "All of its labels are taken, or none, and what was wrong with it is said.")),
      problem,
      told,
      make("div", { class: "row" }, make("button", { type: "button", onclick: () => shown.close() }, "Close"))));
  shown.addEventListener("close", () => imported && changed());
}

function keep(content, name) {
  const address = URL.createObjectURL(content);
  save(address, name);
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function save(address, name) {
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

// The photographs that went out inside the tasks come back in them, and the gateway has them. A text that is no
// such list goes as it is: what is wrong with it, the gateway says.
function without(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    return new Blob([text], { type: "application/json" });
  }
  if (!Array.isArray(found)) return found;
  return found.map((task) => (String(task?.data?.image ?? "").startsWith("data:") ? { ...task, data: { ...task.data, image: "" } } : task));
}
