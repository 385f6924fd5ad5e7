import { post } from "./api.js";
import { make } from "./parts.js";

// Until somebody is signed in. The token goes into one request's body, and nowhere else.
export function signIn(main, why = "") {
  return new Promise((done) => {
    const field = make("input", {
      id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false", "aria-describedby": "token-from",
    });
    const problem = make("p", { class: "bad", role: "alert" });
    const button = make("button", { class: "main" }, "Sign in");
    const send = async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        await post("/review/api/session", { token: field.value });
        field.value = "";
        done();
      } catch (error) {
        if (error.status === 401) problem.textContent = "This token is not known here, has expired, or was revoked.";
        else if (error.status === 403) problem.textContent = "This token is good, but not a reviewer's: it may not label.";
        else problem.textContent = error.words;
        button.disabled = false;
        field.select();
      }
    };
    main.replaceChildren(
      make("form", { class: "card signin", onsubmit: send },
        make("h1", {}, "Sign in to review"),
        why ? make("p", { class: "notice", role: "status" }, why) : null,
        make("label", { for: "token" }, "Reviewer's token"),
        field,
        problem,
        button,
        make("p", { class: "note", id: "token-from" }, "An administrator makes one: ",
          make("code", {}, "retiderm token create READER --role reviewer")),
      ),
    );
    document.title = "Sign in · retiderm review";
    field.focus();
  });
}
