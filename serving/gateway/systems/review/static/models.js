// What serves, what answers beside it, how the two compare, drift; and the registry with its decisions.

import { get } from "./api.js";
import { beside, facts, failed, loading, make, percent, plural, table, words } from "./parts.js";
import { registryCards } from "./registry.js";

export async function modelsPage(place, app, task) {
  const tasks = await get("/review/api/models");
  if (!task) {
    place.replaceChildren(make("h1", {}, "Models"), tasks.length ? make("ul", { class: "list", "aria-label": "Tasks" }, tasks.map(line)) : make("p", { class: "card note" }, "No model is served."));
    return {};
  }
  const served = tasks.find((one) => one.task === task) ?? { champion: null, challenger: null };
  const [compared, drift, registry] = [make("div", {}, loading("Comparing …")), make("div", {}, loading("Looking at the newest answers …")), make("div", {}, loading("Asking the registry …"))];
  place.replaceChildren(
    make("p", {}, make("a", { href: "#/models" }, "All models")),
    make("h1", {}, words(task)),
    make("div", { class: "stack" }, serving(served), compared, registry, drift));
  // Each as it comes: the registry is a command that takes seconds.
  const fill = (element, work, show) =>
    work.then((found) => element.replaceChildren(show(found))).catch((error) => app.told(error, () => element.replaceChildren(failed(error))));
  const all = get(`/review/api/models/${task}`);
  fill(compared, all, (found) => sideBySide(found.compared, served.challenger));
  fill(registry, all, (found) => (found.registry ? registryCards(task, found, app) : away(found.registry_away)));
  fill(drift, get(`/review/api/drift/${task}`), driftCard);
  return {};
}

function line(one) {
  return make("li", {}, make("a", { href: `#/models/${one.task}` },
    make("span", { class: "what" }, make("b", {}, words(one.task))),
    make("span", { class: "why" }, one.challenger ? make("span", { class: "tag strong" }, `challenger: version ${one.challenger.version}, ${mode(one.challenger)}`) : make("span", { class: "soft" }, "no challenger")),
    make("span", { class: "sure" }, one.champion ? `version ${one.champion.version} serves` : "nothing serves")));
}

const mode = (one) => (one.mode === "share" ? `answers ${percent(one.share, 0)} of the requests` : "in shadow");

function serving({ champion, challenger }) {
  const card = (title, one, nothing, more) => make("section", { class: "card" },
    make("h2", {}, title),
    one
      ? facts([["Version", one.version], ["Digest", make("code", {}, String(one.digest).slice(0, 19))], ["Precision", one.precision ?? "–"], ["Runtime", one.runtime ?? "–"], ...more])
      : make("p", { class: "note" }, nothing));
  return make("div", { class: "pair" },
    card("Champion", champion, "Nothing serves.", []),
    card("Challenger", challenger, "None answers beside it.", challenger ? [["How", challenger.mode === "share" ? mode(challenger) : "in shadow: its answers are kept, and given to nobody"]] : []));
}

function sideBySide(one, challenger) {
  const told = beside(one) ?? (challenger ? "The two have not answered the same images yet." : "There is no challenger to compare with.");
  return make("section", { class: "card" }, make("h2", {}, "Side by side"), make("p", { class: one.images ? "" : "note" }, told));
}

const away = (why) => make("section", { class: "card" }, make("h2", {}, "Registry"), make("p", { class: "note" }, why, " Approve and roll back by retiderm models, where the registry is."));

const short = (value) => (value == null ? "–" : String(Number(Number(value).toPrecision(3))));

// Windows follow each other: the newest whole one, the one that fills, and the same of what readers say.
function windows({ windows: { images, labels } }) {
  const told = (one) => `${one.images} of ${one.size}, ${{ ok: "no shift", waiting: "not judged yet" }[one.severity] ?? one.severity}${one.look ? ` after ${one.look}` : ""}`;
  return facts([
    ["Newest whole window", images.whole ? told(images.whole) : "none yet"],
    ["Window that fills", told(images.running)],
    ["Readers' verdicts", `${labels.whole ? `${told(labels.whole)}; then ` : ""}${told(labels.running)}`],
  ]);
}

function driftCard(report) {
  const judged = report.findings.filter((one) => one.statistic != null);
  const not = report.findings.filter((one) => one.statistic == null);
  const row = (one) => make("tr", {},
    make("th", { scope: "row" }, words(one.measure), one.head ? make("span", { class: "soft" }, ` ${words(one.head)}`) : null),
    make("td", { class: "number" }, short(one.statistic)), make("td", { class: "number" }, short(one.threshold)),
    make("td", { class: one.alarm ? "bad" : "" }, one.reason));
  return make("section", { class: "card" },
    make("h2", {}, "Drift"),
    make("p", { class: report.alarm ? "bad" : { ok: "good" }[report.severity] ?? "note" }, report.reason),
    windows(report),
    report.page ? make("p", {}, make("a", { href: report.page, target: "_blank", rel: "noopener" }, "Each measure's values, in a new tab"), make("span", { class: "soft" }, " takes some seconds")) : null,
    judged.length ? table("What was measured", ["Measure", "Statistic", "Threshold", "What it says"], judged.map(row)) : null,
    not.length
      ? make("details", {}, make("summary", {}, `${plural(not.length, "measure is", "measures are")} not judged`), make("ul", {}, not.map((one) => make("li", {}, make("b", {}, words(one.measure)), one.head ? ` ${words(one.head)}` : "", `: ${one.reason}`))))
      : null);
}
