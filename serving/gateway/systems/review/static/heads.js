// What a reader says: a class for each head, or that it can't be graded and why.

import { make, percent, words } from "./parts.js";

export const WHY = ["blurred", "too dark", "too bright", "wrong subject", "covered", "other"];
// The value of the choice "can't be graded"; no class is empty.
export const CANNOT = "";

// `said` is {chosen: {head: class or CANNOT}, why, comment}.
export const isCannot = (said) => Object.values(said.chosen).includes(CANNOT);

export const isWhole = (said, names) => names.every((name) => name in said.chosen) && (!isCannot(said) || Boolean(said.why));

export const asSent = (said, names) => ({
  heads: Object.fromEntries(names.map((name) => [name, said.chosen[name] === CANNOT ? { cannot_grade: said.why } : { value: said.chosen[name] }])),
  comment: said.comment.trim() || null,
});

export function ofLabels(labels, reader) {
  const said = { chosen: {}, why: "", comment: "" };
  for (const label of labels.filter((one) => one.reader === reader)) {
    said.chosen[label.head] = label.value ?? CANNOT;
    said.why = label.cannot_grade ?? said.why;
    said.comment = label.comment ?? said.comment;
  }
  return said;
}

export function headField(entry, name, said, changed, focused) {
  const answer = entry.heads[name];
  const several = answer.set.length > 1;
  const choice = (value, key, about) => {
    const input = make("input", { type: "radio", name: `head-${name}`, value, onchange: () => ((said.chosen[name] = value), changed()), onfocus: focused });
    return { input, label: make("label", { class: "choice" }, input, make("span", { class: "name" }, make("kbd", { "aria-hidden": "true" }, key), about)) };
  };
  const titles = {};
  const choices = entry.classes[name].map((value, number) => {
    const title = make("span", { class: "title soft" });
    titles[value] = title;
    const made = choice(value, number < 9 ? String(number + 1) : "", [
      ` ${words(value)}`,
      title,
      value === answer.label ? make("span", { class: "tag" }, "model's answer") : null,
      several && value !== answer.label && answer.set.includes(value) ? make("span", { class: "tag" }, "possible") : null,
    ]);
    const bar = make("i");
    bar.style.width = `${100 * answer.probabilities[value]}%`;
    made.label.append(make("span", { class: "p" }, percent(answer.probabilities[value])), make("span", { class: "bar", "aria-hidden": "true" }, bar));
    return made;
  });
  choices.push(choice(CANNOT, "c", [" can't be graded"]));
  const element = make("fieldset", { class: "head" },
    make("legend", {}, words(name), answer.uncertain ? make("span", { class: "warn" }, " · uncertain") : null),
    choices.map(({ label }) => label));
  return {
    element,
    entitle(found) {
      for (const [value, title] of Object.entries(titles)) title.textContent = found[value] ?? "";
    },
    paint(current) {
      element.classList.toggle("current", current);
      for (const { input } of choices) input.checked = said.chosen[name] === input.value;
    },
  };
}

// Shown where something can't be graded.
export function whyField(said, changed) {
  const reasons = said.why && !WHY.includes(said.why) ? [...WHY, said.why] : WHY;
  const inputs = reasons.map((text) => make("input", { type: "radio", name: "why", value: text, onchange: () => ((said.why = text), changed()) }));
  const element = make("fieldset", { class: "why" },
    make("legend", {}, "Why can't it be graded?"),
    inputs.map((input, number) => make("label", {}, input, make("span", {}, make("kbd", { "aria-hidden": "true" }, String(number + 1)), ` ${input.value}`))));
  return {
    element,
    reasons,
    focus: () => (inputs.find((input) => input.checked) ?? inputs[0]).focus(),
    has: (target) => element.contains(target),
    paint() {
      element.hidden = !isCannot(said);
      for (const input of inputs) input.checked = said.why === input.value;
    },
  };
}
