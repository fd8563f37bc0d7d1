// The page of a review: asks about one clip after the other, and shows what came of it.
// Nothing is decided here: each answer is sent, and counts once the server has it on disk.

import { byId, make, score } from "./text.js";

const token = location.hash.slice(1);
const tab = tabName();
const shown = { question: null, state: null, taken: null, busy: false, training: null, writing: null, pointed: false };

/** A name for this tab that a reload keeps, and that a copy of the tab does not have. */
function tabName() {
  const [entry] = performance.getEntriesByType("navigation");
  const before = entry?.type === "reload" ? sessionStorage.getItem("tab") : null;
  const numbers = crypto.getRandomValues(new Uint32Array(3));
  const name = before ?? [...numbers].map((one) => one.toString(36)).join("");
  sessionStorage.setItem("tab", name);
  return name;
}

async function ask(what, content = {}) {
  let answer;
  try {
    answer = await fetch(`review/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Unfreeze-Token": token },
      body: JSON.stringify({ tab, ...content }),
    });
  } catch {
    throw new Error("The server does not answer. Start `unfreeze review` again: what was saved is kept.");
  }
  const found = await answer.json();
  if (answer.ok || answer.status === 409) return found;
  throw new Error(found.detail ?? "The server refused this.");
}

/** Do one thing at a time, and show what went wrong with it. */
async function doing(work) {
  if (shown.busy) return;
  shown.busy = true;
  byId("clip").ariaBusy = "true";
  try {
    await work();
  } catch (error) {
    complain(error.message);
  } finally {
    shown.busy = false;
    byId("clip").ariaBusy = "false";
  }
}

function complain(text, taken = null) {
  byId("cause").textContent = text;
  byId("error").hidden = !text;
  byId("taken").hidden = taken === null;
  shown.taken = taken;
  if (taken) byId("replace").focus();
}

const say = (text) => { byId("status").textContent = text; };

async function next() {
  const found = await ask("next", { order: byId("order").value, label: byId("label").value });
  show(found.question);
}

function show(question) {
  shown.question = question;
  close();
  const audio = byId("audio");
  audio.pause();
  for (const button of document.querySelectorAll("[data-answer]")) button.disabled = !question;
  byId("picture").hidden = !question?.picture;
  byId("no-media").hidden = !question || Boolean(question.picture);
  byId("play").disabled = !question?.sound;
  if (!question) {
    byId("question").textContent = "Nothing is left to ask";
    byId("where").textContent = "Choose another order or class above, or give more recordings.";
    byId("scores").textContent = "";
    audio.removeAttribute("src");
    return;
  }
  byId("question").textContent = `Is this ${question.asked}?`;
  byId("yes-text").textContent = `Yes, ${question.asked}`;
  byId("where").textContent = `${question.recording}, ${question.start.toFixed(1)} to ${question.end.toFixed(1)} s`;
  byId("scores").textContent = `Highest scores: ${question.likeliest.map(([name, value]) => `${name} ${score(value)}`).join(", ")}`;
  if (question.picture) {
    byId("picture").src = question.picture;
    byId("picture").alt = `Spectrogram of ${(question.end - question.start).toFixed(1)} seconds, low sounds at the bottom`;
  }
  if (question.sound) {
    audio.src = question.sound;
    if (byId("auto").checked) play();
  }
}

function play() {
  const audio = byId("audio");
  if (!audio.getAttribute("src")) return;
  audio.currentTime = 0;
  // Browsers stay silent until a page has been used.
  audio.play().catch(() => {});
}

async function decide(answer, label = "", replace = false) {
  const { clip, asked, order } = shown.question;
  const found = await ask("decide", { clip, answer, label, asked, order, replace });
  if (found.taken) {
    const { label: name, answer: other } = found.taken;
    complain(`On another page this clip was called ${name ?? words(other)}. It is not changed.`, { answer, label });
    return;
  }
  complain("");
  const saved = `Saved: ${found.decision.label || words(found.decision.answer)}.`;
  await next();
  // The status is read aloud: without the question, who cannot see it would not know what is asked.
  say(`${saved} ${byId("question").textContent}`);
  follow();
}

function words(answer) {
  return { yes: "yes", no: `not ${shown.question?.asked ?? "that"}`, unsure: "not sure", skip: "skipped" }[answer] ?? answer;
}

function choose(answer) {
  if (!shown.question || shown.taken) return;
  if (answer === "other") return open();
  if (answer === "none") return doing(() => decide("other", "background"));
  return doing(() => decide(answer));
}

function open() {
  byId("other").hidden = false;
  document.querySelector("[data-answer=other]").setAttribute("aria-expanded", "true");
  byId("other-name").value = "";
  byId("other-name").focus();
}

function close() {
  const inside = byId("other").contains(document.activeElement);
  byId("other").hidden = true;
  document.querySelector("[data-answer=other]").setAttribute("aria-expanded", "false");
  if (inside) byId("clip").focus();
}

async function undo() {
  const { question } = await ask("undo");
  complain("");
  if (!question) return say("There is nothing to undo on this page.");
  show(question);
  say(`Taken back. Is this ${question.asked}?`);
  follow();
}

/** Show what came of it; meanwhile the next answer can be given. */
function follow() {
  refresh().catch((error) => complain(error.message));
}

async function refresh() {
  const label = byId("label").value;
  const state = await ask("state", { label });
  shown.state = state;
  const { counts } = state;
  byId("progress").textContent = `${counts.all - counts.left} of ${counts.all} clips decided`;
  fill(state);
  showCounts(counts);
  showTraining(state.training);
  showDensity(state, label);
}

/** What changes rarely: classes, notes, what the answers do. */
function fill(state) {
  const names = ["", ...state.known];
  const select = byId("label");
  if (names.length !== select.options.length) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name || "any class" })));
    select.value = before;
  }
  byId("classes").replaceChildren(...state.labels.map((name) => make("option", { value: name })));
  byId("folder").textContent = `Saved in ${state.folder}.`;
  byId("notes").hidden = !state.notes.length;
  byId("notes").replaceChildren(...state.notes.map((text) => make("li", { textContent: text })));
  const no = state.several
    ? "The class is not heard. That is trained on; of the other classes nothing is said."
    : "The class is not heard. It is kept and counted, and not trained on: it does not say what is heard. If you know that, choose another class, or none.";
  const none = state.background
    ? "Nothing that the run knows is heard. Trained on as background."
    : state.several
      ? "Nothing that the run knows is heard. Trained on as a clip without a label."
      : "Nothing that the run knows is heard. The run has no class background: training adds one.";
  const told = [
    ["Yes, another class", `Trained on as this class. A new name makes a new class.${state.several ? " The class that was asked for counts as not heard: if both are, say yes." : ""}`],
    ["No", no],
    ["None of the classes", none],
    ["Not sure", "Kept and not trained on. In a random sample it makes the count less certain."],
    ["Skip", "Asked again once nothing else is left. A random sample skips nothing: say that you are not sure."],
  ];
  if (!byId("about").children.length) {
    byId("about").replaceChildren(...told.flatMap(([term, text]) => [make("dt", { textContent: term }), make("dd", { textContent: text })]));
  }
}

function showCounts(counts) {
  const rows = Object.entries(counts.labels).map(([name, count]) => [name || "none", count]);
  for (const answer of ["no", "unsure", "skip"]) {
    const title = { no: "(no, not that class)", unsure: "(not sure)", skip: "(skipped)" }[answer];
    if (counts.answers[answer]) rows.push([title, counts.answers[answer]]);
  }
  byId("no-labels").hidden = rows.length > 0;
  byId("counts").hidden = !rows.length;
  byId("count-rows").replaceChildren(
    ...rows.map(([name, count]) => make("tr", {}, make("td", { textContent: name }), make("td", { textContent: String(count) }))),
  );
}

function showTraining(training) {
  const { now, writing, last, models, trainable, fewest } = training;
  const clips = trainable === 1 ? "1 clip has" : `${trainable} clips have`;
  const doing = { listening: "Listening to the run's own recordings, once", training: "Training" };
  byId("train").disabled = Boolean(now) || trainable < fewest;
  byId("train-text").textContent = now
    ? `${doing[now.stage]}, ${Math.round(now.seconds)} s. Go on meanwhile.`
    : trainable < fewest
      ? `${clips} a label to train on. From ${fewest} on you can train again.`
      : `${clips} a label to train on.`;
  if (last) showChange(last);
  byId("model").hidden = !last;
  if (last) showModel(last, writing, training.command);
  if (shown.training && !now) say(last?.state === "done" ? "The training has ended. What is left has a new order." : "The training has failed.");
  if (shown.writing && !writing) sayWritten(shown.writing.number, models[shown.writing.number]);
  Object.assign(shown, { training: now, writing });
  clearTimeout(showTraining.timer);
  if (now || writing) showTraining.timer = setTimeout(follow, 1000);
}

const SCORES = { accuracy: "accuracy", balanced_accuracy: "balanced accuracy", macro_f1: "mean F1", mean_average_precision: "mean average precision" };
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

/** Before, after and the change on the test clips, as text; null without any. */
function compared(test) {
  if (!test) return null;
  const name = Object.keys(SCORES).find((one) => one in test.difference);
  const bounds = test.intervals[name];
  const spread = bounds ? `, 95 % interval ${signed(bounds[0])} to ${signed(bounds[1])}` : "";
  return {
    scores: `${test.before[name].toFixed(2)} → ${test.after[name].toFixed(2)}`,
    name: SCORES[name],
    change: `${signed(test.difference[name])}${spread}`,
  };
}

const asNotes = ({ notes, problems }) => [...notes, ...problems.map((text) => `Left out: ${text}.`)]
  .map((text) => make("p", { className: "note", textContent: text }));

function showChange(last) {
  const key = `${last.number} ${last.state}`;
  if (byId("change").dataset.key === key) return;
  byId("change").dataset.key = key;
  if (last.state === "failed") {
    byId("change").replaceChildren(make("p", { textContent: `Training ${last.number} failed: ${last.result.cause}` }));
    return;
  }
  const { change, seconds } = last.result;
  const told = compared(change.test);
  const parts = [];
  if (told) {
    parts.push(
      make("p", { className: "big", textContent: told.scores }),
      make("p", { textContent: `${told.name} on the run's ${change.test.clips} test clips, which no training has seen: before and after ${last.labels} new labels (${told.change}).` }),
    );
  } else parts.push(make("p", { textContent: "The run has no test clips, so what changed is not known." }));
  parts.push(make("p", { className: "note", textContent: `Took ${Math.max(1, Math.round(seconds))} s. What is left has a new order.` }));
  byId("change").replaceChildren(...parts, ...asNotes(change));
}

function sayWritten(number, model) {
  say(model?.state === "written" ? `The model of training ${number} is written: ${model.run}.` : `The model of training ${number} was not written.`);
}

function showModel(last, writing, command) {
  const model = writing ? { state: "writing" } : last.result.model;
  byId("command").textContent = command;
  byId("write").disabled = Boolean(writing);
  byId("write").hidden = model?.state === "written";
  byId("model-text").textContent = modelText(last, model, writing);
}

function modelText(last, model, writing) {
  if (writing) return `Writing the model of training ${writing.number}, ${Math.round(writing.seconds)} s. Go on meanwhile.`;
  if (model?.state === "failed") return `The model was not written: ${model.cause}`;
  if (model?.state === "written") {
    const told = compared(model.change.test);
    return `The model of training ${last.number} is in ${model.run}.${told ? ` Its ${told.name} on the same test clips: ${told.scores} (${told.change}).` : ""}`;
  }
  if (last.state === "failed") return "A model may still be trained on these labels: a run of its own, with a gate, thresholds and a report. It takes some minutes.";
  return "Training has so far made a new head, which orders the clips. Write the model to use it elsewhere: a run with a gate, thresholds and a report, trained on the same labels. It takes some minutes, and is measured on the test clips again.";
}

function showDensity(state, label) {
  const { density, sample } = state;
  const note = (text) => make("p", { className: "note", textContent: text });
  const whole = (value) => Math.round(value).toLocaleString("en");
  const hourly = (value) => {
    const rate = (3600 * value) / state.seconds;
    return rate < 10 ? rate.toFixed(1) : whole(rate);
  };
  const parts = [];
  if (!label) parts.push(note("Choose a class above, and “a random sample, to count calls”."));
  else if (!density) {
    parts.push(note(`${sample.known} clips of the random sample for ${label} are known. From about 10 on there is an estimate; 40 and more make it useful.`));
  } else {
    parts.push(
      make("p", { className: "big", textContent: `${whole(density.estimate)} of ${whole(density.clips)} clips` }),
      make("p", { textContent: `have ${label} in them; with 95 % probability between ${whole(density.low)} and ${whole(density.high)}. That is ${hourly(density.estimate)} clips in an hour of sound (${hourly(density.low)} to ${hourly(density.high)}).` }),
      note(`From ${density.known} clips of a random sample, ${density.found} of them with ${label}. Clips are counted, not calls: two calls in one clip count once. It assumes that your answers are right.`),
    );
    if (density.unsure) parts.push(note(`Not sure about ${density.unsure}, which are left out: if none of them had it, the estimate would be ${whole(density.low_unsure)}; if all had it, ${whole(density.high_unsure)}.`));
  }
  byId("density").replaceChildren(...parts);
}

async function write(kind) {
  const { place, clips } = await ask("export", { kind });
  say(`${clips} clips written to ${place}.`);
}

const KEYS = { y: "yes", n: "no", o: "other", b: "none", u: "unsure", s: "skip" };

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !byId("other").hidden) return close();
  const typing = event.target.closest("input[list], select, textarea, [contenteditable]");
  if (!byId("keys").checked || typing || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  if (key === " " && !event.target.closest("button, summary, input, a")) play();
  else if (key === "z") doing(undo);
  else if (key in KEYS && !event.repeat) choose(KEYS[key]);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => choose(button.dataset.answer));
}
for (const button of document.querySelectorAll("[data-export]")) {
  button.addEventListener("click", () => doing(() => write(button.dataset.export)));
}
byId("play").addEventListener("click", play);
byId("undo").addEventListener("click", () => doing(undo));
byId("cancel").addEventListener("click", close);
byId("train").addEventListener("click", () => doing(async () => { await ask("train"); follow(); }));
byId("write").addEventListener("click", () => doing(async () => { await ask("write"); follow(); }));
byId("replace").addEventListener("click", () => doing(() => decide(shown.taken.answer, shown.taken.label, true)));
byId("leave").addEventListener("click", () => doing(async () => { complain(""); await next(); follow(); byId("clip").focus(); }));
byId("other").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("other-name").value.trim();
  if (name) doing(() => decide(name === shown.question.asked ? "yes" : "other", name === shown.question.asked ? "" : name));
});
// The token is behind the #: to go to #clip would lose it at the next reload.
document.querySelector("a.skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("clip").focus();
});
byId("choices").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["order", "label"]) {
  byId(name).addEventListener("change", () => doing(async () => {
    complain("");
    if (byId("order").value === "sample" && !byId("label").value) byId("label").selectedIndex = 1;
    await next();
    follow();
    // With a pointer the choice is made; on the keyboard, arrows go on to other choices.
    if (shown.pointed) byId("clip").focus();
    shown.pointed = false;
  }));
  byId(name).addEventListener("pointerdown", () => { shown.pointed = true; });
  byId(name).addEventListener("keydown", (event) => {
    shown.pointed = false;
    if (event.key === "Enter" || event.key === "Escape") byId("clip").focus();
  });
}
doing(async () => {
  await refresh();
  await next();
});
