import { get, post } from "./api.js";
import { make, percent, say, when, words } from "./parts.js";
import { ended } from "./main.js";

export async function modelsPage(main, { params: [task] }) {
  const tasks = await get("/review/api/models");
  const list = make("ul", { class: "list", "aria-label": "Tasks" },
    tasks.map((one) => make("li", {}, make("a", { href: `#/models/${one.task}` },
      make("b", {}, words(one.task)),
      make("span", {}, one.champion ? `version ${one.champion.version} serves` : "nothing serves"),
      make("span", { class: one.challenger ? "tag strong" : "soft" }, one.challenger ? `challenger ${one.challenger.version}: ${one.challenger.mode}` : "no challenger"),
    ))),
  );
  if (!task) {
    main.replaceChildren(make("h1", {}, "Models"), tasks.length ? list : make("p", { class: "card note" }, "No model is served."));
    return {};
  }
  const [all, drift] = await Promise.all([
    get(`/review/api/models/${task}`),
    get(`/review/api/drift/${task}`).catch((error) => ({ error: error.message })),
  ]);
  main.replaceChildren(
    make("p", {}, make("a", { href: "#/models" }, "All models")),
    make("h1", {}, words(task)),
    make("div", { class: "stack" },
      serving(all.served),
      sideBySide(all.compared),
      driftCard(drift),
      all.registry ? registry(task, all, () => modelsPage(main, { params: [task] })) : make("p", { class: "card note" }, all.registry_away),
    ),
  );
  return {};
}

function serving({ champion, challenger }) {
  const card = (title, one, more) => make("section", { class: "card" },
    make("h2", {}, title),
    one
      ? make("dl", { class: "facts" }, [["Version", one.version], ["Digest", String(one.digest).slice(0, 23)], ["Precision", one.precision], ["Runtime", one.runtime ?? "–"], ...more].map(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]))
      : make("p", { class: "note" }, "none"),
  );
  return make("div", { class: "row" },
    card("Champion", champion, []),
    card("Challenger", challenger, challenger ? [["Answers", challenger.mode === "share" ? `${percent(challenger.share)} of the requests` : words(challenger.mode)]] : []),
  );
}

function sideBySide(one) {
  return make("section", { class: "card" },
    make("h2", {}, "Side by side"),
    one.images
      ? make("p", {}, `Both answered ${one.images} images and agree on ${one.agree} (${percent(one.agree / one.images)}).`, one.labelled ? ` Of ${one.labelled} that readers labelled, the champion is right on ${one.champion_right} and the challenger on ${one.challenger_right}.` : " None of them was labelled yet.")
      : make("p", { class: "note" }, "The two have not answered the same images yet."),
  );
}

function driftCard(report) {
  if (report.error) return make("section", { class: "card" }, make("h2", {}, "Drift"), make("p", { class: "note" }, report.error));
  return make("section", { class: "card" },
    make("h2", {}, "Drift"),
    make("p", { class: { ok: "good", waiting: "note" }[report.severity] ?? "bad" }, report.reason),
    make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ["Measure", "Head", "Statistic", "Threshold", "What it says"].map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, report.findings.map((one) => make("tr", {}, make("td", {}, words(one.measure)), make("td", {}, words(one.head ?? "")), make("td", { class: "number" }, short(one.statistic)), make("td", { class: "number" }, short(one.threshold)), make("td", { class: ["warning", "critical"].includes(one.severity) ? "bad" : "soft" }, one.reason)))),
    )),
  );
}

function registry(task, { registry: found }, again) {
  const decide = (verb, version, label, danger) => make("button", { type: "button", class: danger ? "danger" : "", onclick: () => confirm(task, verb, version, label, again) }, label);
  const versions = found.versions.map((one) => make("tr", {},
    make("td", { class: "number" }, String(one.version)),
    make("td", {}, (one.aliases ?? []).join(", ") || "–"),
    make("td", {}, gate(one)),
    make("td", {}, make("div", { class: "row" },
      (one.aliases ?? []).includes("champion") ? null : decide("approve", String(one.version), "Approve"),
      (one.aliases ?? []).includes("champion") ? decide("rollback", null, "Roll back", true) : decide("promote", String(one.version), "Promote"))),
  ));
  const ledger = [...found.ledger].reverse().map((one) => make("tr", {}, make("td", { class: "number" }, String(one.seq)), make("td", {}, when(one.time)), make("td", {}, words(one.event)), make("td", {}, String(one.version ?? "")), make("td", {}, one.who ?? ""), make("td", {}, one.why ?? "")));
  const table = (heads, rows) => make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, rows)));
  return make("div", { class: "stack" },
    make("section", { class: "card" }, make("h2", {}, "Versions"), table(["Version", "Alias", "Gate", "Decide"], versions)),
    make("section", { class: "card" }, make("h2", {}, "Ledger"), table(["#", "When", "What", "Version", "Who", "Why"], ledger)),
  );
}

const short = (value) => (value == null ? "–" : Number(value).toPrecision(3));

const gate = (one) => {
  const said = one.gate ?? one.decision ?? null;
  return typeof said === "string" ? words(said) : (said?.verdict ?? said?.outcome ?? "–");
};

function confirm(task, verb, version, label, again) {
  const why = make("input", { id: "decision-why", required: true, minlength: "3", maxlength: "500" });
  const problem = make("p", { class: "bad", role: "alert" });
  const go = make("button", { class: verb === "rollback" ? "danger" : "main" }, label);
  const dialog = make("dialog", { "aria-labelledby": "decision-title", onclose: () => dialog.remove() },
    make("h2", { id: "decision-title" }, `${label}: ${words(task)}${version ? ` version ${version}` : ""}`),
    make("form", {
      class: "stack",
      onsubmit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        try {
          await post(`/review/api/models/${task}/${verb}`, { version, why: why.value });
          dialog.close();
          say("Done. The ledger has it.");
          await again();
        } catch (error) {
          if (error.ended) return ended();
          problem.textContent = error.message;
          go.disabled = false;
        }
      },
    },
      make("div", {}, make("label", { for: "decision-why" }, "Why? It goes into the ledger."), why),
      problem,
      make("div", { class: "row" }, go, make("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
