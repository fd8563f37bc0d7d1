// How the parts of the studio's page ask the server, and say what came of it.

import { byId, make } from "./text.js";

export const tabToken = location.hash.slice(1);

export async function ask(what, content = {}) {
  let answer;
  try {
    answer = await fetch(`studio/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Unfreeze-Token": tabToken },
      body: JSON.stringify(content),
    });
  } catch {
    throw new Error("The server does not answer. Start `unfreeze studio` again: a training that was running is found again.");
  }
  const found = await answer.json();
  if (answer.ok) return found;
  throw new Error(answer.status === 422 ? found.cause : found.detail ?? "The server refused this.");
}

export function complain(text) {
  byId("cause").textContent = text;
  byId("error").hidden = !text;
  if (text) byId("error").scrollIntoView({ block: "nearest" });
}

export function say(text, busy = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("busy", busy);
}

/** A command, or several lines of them: words are kept whole where there is room. */
export function showCommand(element, text) {
  element.replaceChildren(...text.split(/(\s)/).map((word) => (word.length > 40 || !word.trim() ? word : make("span", { className: "word", textContent: word }))));
}
