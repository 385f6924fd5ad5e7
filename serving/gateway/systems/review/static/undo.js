import { post } from "./api.js";
import * as memory from "./memory.js";
import { say } from "./parts.js";

// Take back what this reader did last in this tab, or what they said of the image before them; and show it.
export async function undoLast(app, here = null) {
  const last = memory.lastDone() ?? here;
  if (!last) return say("There is nothing to take back.");
  try {
    await post(`/review/api/entries/${last}/undo`);
    memory.dropLast();
    // What was entered of another image stays.
    memory.keepDraft(last, null);
    say("Taken back.");
    if (location.hash === `#/case/${last}`) app.refresh();
    else location.hash = `#/case/${last}`;
  } catch (error) {
    app.told(error, () => {
      // What is gone or was taken back already would be in the way of what came before it.
      if (error.status === 404 || error.status === 409) memory.dropLast();
      say(error.message);
    });
  }
}
