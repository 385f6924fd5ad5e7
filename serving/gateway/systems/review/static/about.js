// What is known about an image, beside the image itself.

import { facts, make, percent, when, words } from "./parts.js";

export function aboutImage(entry) {
  const rows = [
    ["Quality", [entry.quality.verdict, ...entry.quality.reasons].map(words).join(", ")],
    ["Unusual", entry.unusual == null ? "not known" : `more than ${percent(entry.unusual)} of usual images`],
    ["Model", `${words(entry.model.name)} version ${entry.model.version}`],
    ["Size", `${entry.width} × ${entry.height}`],
    ["Received", when(entry.taken_at)],
    ["Case", entry.case_key ?? "–"],
    ["Readers", `${entry.readers_done} of ${entry.readers_needed}`],
  ];
  return make("section", { class: "card", "aria-label": "About this image" }, make("h2", {}, "About this image"), facts(rows));
}

// Why it is here, in its user's words.
export function rejections(entry) {
  if (!entry.rejections.length) return null;
  return make("section", { class: "card", "aria-label": "What its user said" },
    make("h2", {}, "What its user said"),
    entry.rejections.map((one) => make("p", {}, make("span", { class: "soft" }, `${when(one.at)} `), [one.reason, one.notes].filter(Boolean).join(": ") || "no reason given")));
}

// Labels that this reader may see: their own, and everybody's once all have read.
export function standing(entry) {
  const readers = new Map();
  for (const label of entry.labels) readers.set(label.reader, [...(readers.get(label.reader) ?? []), label]);
  if (!readers.size) return null;
  const said = (one) => (one.value == null ? `can't be graded (${one.cannot_grade})` : words(one.value));
  return make("section", { class: "card", "aria-label": "Labels" },
    make("h2", {}, "Labels"),
    make("ul", { class: "labels" }, [...readers].map(([reader, labels]) => make("li", {},
      make("b", {}, reader), labels[0].source === "adjudication" ? make("span", { class: "tag strong" }, "decides") : null,
      make("span", { class: "soft" }, ` ${when(labels[0].at)}`), make("br"),
      labels.map((one) => `${words(one.head)}: ${said(one)}`).join("; "),
      labels[0].comment ? make("p", { class: "quote" }, labels[0].comment) : null))));
}

// What the state of an entry means for this reader; null where there is nothing to say.
export function notice(entry, reader) {
  const own = entry.labels.some((one) => one.reader === reader);
  const others = [...new Set(entry.labels.map((one) => one.reader))].filter((one) => one !== reader);
  if (entry.state === "adjudicate" && own) return "You and another reader disagree. A third one decides; you can still change your label.";
  if (entry.state === "adjudicate") return `${others.join(" and ")} disagree. Your label decides.`;
  if (entry.state === "done" && own) return "You have labelled this image. A new label takes the old one's place.";
  if (entry.state === "done") return `This image was labelled by ${others.join(" and ")}. It takes no further label.`;
  if (entry.state === "skipped") return "This image was skipped. Label it all the same, or undo to let it wait again.";
  if (entry.readers_needed > 1 && own) return "You have labelled this image. It waits for another reader.";
  if (entry.readers_needed > 1) return "Two readers label this image. What the other one says is shown when both have.";
  return null;
}

export const takesLabel = (entry, reader) => entry.state !== "done" || entry.labels.some((one) => one.reader === reader);

// The patient's earlier scans: a photograph is shown in the stage while its button is pressed.
export function earlierScans(entry, stage) {
  if (!entry.earlier.length) return null;
  const buttons = [];
  const result = (scan) => words(scan.result?.dr_severity ?? scan.status);
  const item = (scan) => {
    const told = [make("b", {}, result(scan)), make("span", { class: "soft" }, `${when(scan.at)}${scan.visit_type ? `, ${words(scan.visit_type)}` : ""}`)];
    if (!scan.image) return make("li", { class: "thumb" }, told);
    const button = make("button", { type: "button", class: "thumb", "aria-pressed": "false" }, make("img", { src: scan.image, alt: "", loading: "lazy" }), told);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const one of buttons) one.setAttribute("aria-pressed", String(on && one === button));
      stage.element.scrollIntoView({ block: "nearest" });
      stage.compare(on ? scan.image : null, `Earlier: ${result(scan)}, ${when(scan.at)}`);
    });
    buttons.push(button);
    return make("li", {}, button);
  };
  stage.onmain = () => buttons.forEach((one) => one.setAttribute("aria-pressed", "false"));
  return make("section", { class: "card", "aria-label": "Earlier scans of this patient" },
    make("h2", {}, "Earlier scans of this patient"), make("ul", { class: "thumbs" }, entry.earlier.map(item)));
}
