// Versions, what the gate said of them, who decided what; approve, promote, roll back, each with a reason.

import { post } from "./api.js";
import { beside, dialog, facts, make, percent, say, table, when, words } from "./parts.js";

const has = (one, alias) => (one.aliases ?? []).includes(alias);

export function registryCards(task, { registry: { versions, ledger }, compared }, app) {
  if (!versions.length) return make("section", { class: "card" }, make("h2", {}, "Versions"), make("p", { class: "note" }, "The registry has no version of this task: what serves came there by other ways."));
  return make("div", { class: "stack" }, gateReport(versions, ledger), versionsCard(task, versions, compared, app), ledgerCard(ledger));
}

const verdict = (one) => {
  const { decision, pending_approval: pending, approved_by: by } = one.gate ?? {};
  if (pending) return ["waits for approval", "warn"];
  if (decision === "refuse" && by) return [`refused before ${by} approved`, "warn"];
  return { accept: [by ? `accepted, approved by ${by}` : "accepted", "good"], refuse: ["refused", "bad"] }[decision] ?? ["not judged", "soft"];
};

// What the gate said of the newest version that isn't the champion; of the champion where there is no other.
function gateReport(versions, ledger) {
  const one = versions.find((each) => has(each, "challenger")) ?? versions[0];
  const entry = ledger.findLast((each) => each.event === "gate" && each.version === one.version);
  const [text, tone] = verdict(one);
  const champion = versions.find((each) => has(each, "champion"));
  const heads = Object.keys(one.metrics ?? {});
  const number = (found) => (found == null ? "–" : `${Number(found.value).toFixed(3)}${found.low == null ? "" : ` (${Number(found.low).toFixed(3)} to ${Number(found.high).toFixed(3)})`}`);
  const rows = heads.flatMap((head) => Object.keys(one.metrics[head]).sort().map((metric) => make("tr", {},
    make("th", { scope: "row" }, `${words(head)}: ${words(metric)}`),
    make("td", { class: "number" }, number(one.metrics[head][metric])),
    champion && champion !== one ? make("td", { class: "number" }, number(champion.metrics?.[head]?.[metric])) : null)));
  const rules = entry?.data?.rules;
  return make("section", { class: "card" },
    make("h2", {}, `Gate report of version ${one.version}`),
    make("p", {}, make("b", { class: tone }, text), entry ? make("span", { class: "soft" }, ` ${when(entry.time)}`) : null),
    entry?.why || one.tags?.["gate.reasons"] ? make("p", {}, entry?.why || one.tags["gate.reasons"]) : null,
    facts([
      ["Compared with", entry?.data?.champion ? `version ${entry.data.champion}` : "no champion"],
      ["Line", entry?.data?.line ?? "–"],
      ["Rule", rules ? `${words(rules.metric)}, not below the champion's by more than ${rules.margin}, ${percent(rules.confidence, 0)} one-sided` : "–"],
    ]),
    rows.length ? table("Test metrics", ["On its test images", `Version ${one.version}`, ...(champion && champion !== one ? [`Version ${champion.version}, the champion`] : [])], rows) : null);
}

function versionsCard(task, versions, compared, app) {
  const decide = (verb, version, label, danger) => make("button", { type: "button", class: danger ? "danger" : "", onclick: () => confirm(task, verb, version, label, compared, app) }, label);
  const previous = versions.find((one) => has(one, "previous"));
  const choices = (one) => {
    if (has(one, "champion")) return previous ? decide("rollback", previous.version, `Roll back to version ${previous.version}`, true) : make("span", { class: "soft" }, "serves");
    const { decision, pending_approval: pending, approved_by: by } = one.gate ?? {};
    if (pending) return decide("approve", one.version, `Approve version ${one.version}`);
    if (decision === "accept" || by) return decide("promote", one.version, `Promote version ${one.version}`);
    return make("span", { class: "soft" }, "may not serve");
  };
  const rows = versions.map((one) => {
    const [text, tone] = verdict(one);
    return make("tr", {},
      make("th", { scope: "row", class: "number" }, String(one.version)),
      make("td", {}, (one.aliases ?? []).map((alias) => make("span", { class: alias === "champion" ? "tag strong" : "tag" }, alias))),
      make("td", { class: tone }, text), make("td", {}, make("time", { datetime: one.created_at }, when(one.created_at))), make("td", {}, choices(one)));
  });
  return make("section", { class: "card" }, make("h2", {}, "Versions"), table("Versions", ["Version", "Is", "Gate", "Made", "Decide"], rows));
}

function ledgerCard(ledger) {
  const rows = [...ledger].reverse().map((one) => make("tr", { class: one.event === "step" ? "step" : "" },
    make("td", { class: "number" }, String(one.seq)), make("td", {}, make("time", { datetime: one.time }, when(one.time))), make("td", {}, words(one.data?.action ?? one.event), one.data?.action ? make("span", { class: "soft" }, ` (${words(one.event)})`) : one.data?.step ? make("span", { class: "soft" }, ` ${one.data.step}`) : null),
    make("td", { class: "number" }, String(one.version ?? "")), make("td", {}, one.who ?? ""),
    make("td", {}, one.why ?? "", one.data?.comparison ? make("p", { class: "soft" }, beside(one.data.comparison) ?? words(JSON.stringify(one.data.comparison))) : null)));
  const steps = make("input", { type: "checkbox", id: "steps", onchange: () => card.classList.toggle("steps", steps.checked) });
  const card = make("section", { class: "card ledger" },
    make("h2", {}, "Ledger"),
    make("label", { class: "check", for: "steps" }, steps, " each step of a promotion"),
    rows.length ? table("Ledger", ["#", "When", "What", "Version", "Who", "Why"], rows) : make("p", { class: "note" }, "Nothing was decided yet."));
  return card;
}

const DOES = {
  approve: "It may be promoted then. Nothing else changes.",
  promote: "It serves from the next seconds on. No request is lost.",
  rollback: "What served before serves again from the next seconds on. No request is lost.",
};

function confirm(task, verb, version, label, compared, app) {
  const why = make("input", { id: "decision-why", required: true, minlength: "3", maxlength: "500", autocomplete: "off" });
  const problem = make("p", { class: "bad", role: "alert" });
  const go = make("button", { class: verb === "rollback" ? "danger" : "main" }, label);
  const send = async (event) => {
    event.preventDefault();
    go.disabled = true;
    problem.textContent = "";
    go.textContent = "Working …";
    try {
      const done = await post(`/review/api/models/${task}/${verb}`, { version, why: why.value });
      shown.close();
      say(done.under_way ? done.message : done.changed === false ? `Version ${done.version} serves already: nothing was changed.` : "Done. The ledger has it.");
      app.refresh();
    } catch (error) {
      app.told(error, () => (problem.textContent = error.words));
      go.textContent = label;
      go.disabled = false;
    }
  };
  const shown = dialog("decision-title", `${words(task)}: ${label.toLowerCase()}?`,
    make("form", { class: "stack", onsubmit: send },
      make("p", { class: "note" }, DOES[verb]),
      // What was seen of the version that is to serve; the ledger gets it too.
      verb !== "rollback" && String(compared.challenger) === String(version) && beside(compared) ? make("p", {}, beside(compared)) : null,
      make("div", {}, make("label", { for: "decision-why" }, "Why? It goes into the ledger, with your name."), why),
      problem,
      make("div", { class: "row" }, go, make("button", { type: "button", onclick: () => shown.close() }, "Cancel"))));
}
