import { post } from "./api.js";
import { make } from "./parts.js";

export function signIn(main, why = "") {
  return new Promise((done) => {
    const field = make("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
    const problem = make("p", { class: "bad", role: "alert" });
    const button = make("button", { class: "main" }, "Sign in");
    const form = make(
      "form",
      {
        class: "card signin",
        onsubmit: async (event) => {
          event.preventDefault();
          button.disabled = true;
          problem.textContent = "";
          try {
            await post("/review/api/session", { token: field.value });
            done();
          } catch (error) {
            problem.textContent = error.status === 403 ? "This token is not a reviewer's." : error.message;
            button.disabled = false;
            field.select();
          }
        },
      },
      make("h1", {}, "Sign in to review"),
      why ? make("p", { class: "warn", role: "status" }, why) : null,
      make("label", { for: "token" }, "Reviewer's token"),
      field,
      problem,
      button,
      make("p", { class: "note" }, "An administrator makes one: retiderm token create NAME --role reviewer"),
    );
    main.replaceChildren(form);
    field.focus();
  });
}
