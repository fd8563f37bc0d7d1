// The page: takes a recording, sends it, shows what comes back.

import { Figure } from "./figure.js";
import { Player } from "./player.js";
import { microphoneProblem, startRecording } from "./recorder.js";
import { Recordings } from "./recordings.js";
import { byId, clock, csv, download, make, score } from "./text.js";
import { Thresholds } from "./thresholds.js";

// Behind the #, if the server wants one; it is sent in a header, and never as part of an address.
const headers = location.hash.length > 1 ? { "X-Unfreeze-Token": location.hash.slice(1) } : {};
let learned = null; // resolves when the server has told what it knows
let known = { labels: [], multilabel: false, background: true, max_mb: Infinity, max_seconds: 600 };
let prediction = null; // what is shown
let part = null; // the event that is being played
let recording = null;
let playable = true;

// A class takes the next hue when its first event is shown, and keeps it.
const HUES = 8;
// Of a recording that is being made: milliseconds between looks, and seconds that are looked at.
const EVERY = 500;
const RECENT = 3;
const hues = new Map();
const hueOf = (label) => (hues.has(label) ? hues.get(label) % HUES : "none");

const audio = byId("audio");
const player = new Player(audio, moved, () => {
  playable = false;
  byId("play").disabled = byId("seek").disabled = true;
  byId("no-sound").hidden = false;
  byId("no-sound").textContent =
    "This browser cannot play this kind of file. The events are right all the same.";
});
const figure = new Figure(playEvent, seek, hueOf);
const recordings = new Recordings(ask, showAnswer, sayWhichIsAsked, summary);
const thresholds = new Thresholds(() => {
  byId("least").value = "";
  again();
});

// --- taking a recording ---------------------------------------------------------------

byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", ({ target }) => {
  take([...target.files]);
  // So that the same file can be chosen again.
  target.value = "";
});

const drop = byId("drop");
for (const name of ["dragover", "drop"]) {
  // Everywhere: a file dropped beside the box must not replace the page.
  document.addEventListener(name, (event) => event.preventDefault());
}
document.addEventListener("dragover", ({ dataTransfer }) =>
  drop.classList.toggle("over", dataTransfer.types.includes("Files")));
document.addEventListener("dragleave", ({ relatedTarget }) =>
  relatedTarget === null && drop.classList.remove("over"));
document.addEventListener("drop", ({ dataTransfer }) => {
  drop.classList.remove("over");
  take([...dataTransfer.files]);
});

byId("record").addEventListener("click", () => (recording ? stopRecording() : record()));

async function record() {
  player.pause();
  showError(null);
  byId("record").disabled = true;
  try {
    recording = await startRecording(known, showLevel, stopRecording);
    byId("record").classList.add("on");
    byId("record-text").textContent = "Stop";
    byId("meter").hidden = false;
    say("Recording …");
    sayWhatIsHeard(recording);
  } catch (error) {
    showError(microphoneProblem(error));
  }
  byId("record").disabled = false;
}

async function stopRecording() {
  const active = recording;
  if (!active) return;
  recording = null;
  byId("record").classList.remove("on");
  byId("record-text").textContent = "Record";
  byId("meter").hidden = byId("live").hidden = true;
  const blob = await active.stop();
  byId("hint").textContent = hint();
  const name = `recording ${new Date().toTimeString().slice(0, 8).replaceAll(":", "-")}.wav`;
  recordings.add([{ blob, name }]);
}

/** While a recording is made, say what is heard in its last seconds. */
async function sayWhatIsHeard(active) {
  while (recording === active) {
    await new Promise((resolve) => setTimeout(resolve, EVERY));
    const blob = recording === active ? active.recent(RECENT) : null;
    if (!blob) continue;
    const form = new FormData();
    form.append("file", blob, "now.wav");
    try {
      const answer = await fetch(`predict?${new URLSearchParams(scores())}`, { method: "POST", headers, body: form });
      if (!answer.ok || recording !== active) continue;
      const { classes, heard } = await answer.json();
      const named = heard.map((label) => `${label} ${score(classes[label])}`).join(", ");
      byId("live").textContent = `Now: ${named || "nothing that it knows"}`;
      byId("live").hidden = false;
    } catch {
      // What is wrong is told when the whole recording is sent.
    }
  }
}

function showLevel(seconds, level) {
  // In decibels, -60 to 0: in a linear meter a voice would hardly move.
  const shown = Math.max(0, 1 + (20 * Math.log10(level + 1e-9)) / 60);
  byId("level").style.width = `${100 * shown}%`;
  byId("hint").textContent = `recording ${clock(seconds)} of ${clock(known.max_seconds)}`;
}

function take(files) {
  if (files.length) recordings.add(files.map((file) => ({ blob: file, name: file.name })));
}

// --- asking the server ----------------------------------------------------------------

const NO_SERVER = { cause: "The server does not answer", cure: "Is it still running? It was started with: unfreeze serve RUN", again: true };

/** The scores that events begin at, as the server takes them. */
function scores() {
  const least = byId("least").value;
  return least ? [["min_score", least]] : thresholds.query;
}

async function ask({ blob, name }, signal) {
  // A recording given at once may be answered before the classes are known.
  await learned;
  if (blob.size > known.max_mb * 1e6) {
    const cause = `${name}: it has ${(blob.size / 1e6).toFixed(1)} MB; this server takes ${known.max_mb} MB`;
    return { problem: { cause, cure: "Send a part of it, or as FLAC or MP3." } };
  }
  const form = new FormData();
  form.append("file", blob, name);
  const query = new URLSearchParams([["spectrogram", "true"], ...scores()]);
  try {
    const answer = await fetch(`predict?${query}`, { method: "POST", headers, body: form, signal });
    const body = await answer.json();
    if (answer.ok) return { body };
    const cause = body.file ? `${name}: ${body.cause}` : body.cause ?? body.detail;
    return { problem: { cause, cure: body.cure, again: answer.status === 503 } };
  } catch {
    return { problem: NO_SERVER };
  }
}

function sayWhichIsAsked(item) {
  if (item) {
    // The message of the one that is shown stays while the others are asked about.
    if (item === recordings.shown) showError(null);
    const { items } = recordings;
    const place = items.length > 1 ? ` (${items.indexOf(item) + 1} of ${items.length})` : "";
    say(`Listening to ${item.name} …${place}`, true);
  } else {
    say(prediction ? summary(prediction) : "");
  }
}

function showAnswer(item) {
  showError(item.problem);
  if (item.body) show(item.body, item.blob, item.name);
  if (!recordings.busy) say(item.body ? summary(item.body) : "");
}

byId("retry").addEventListener("click", () => {
  if (!known.labels.length) learned = learn();
  recordings.work();
});
byId("least").addEventListener("change", () => {
  thresholds.clear();
  again();
});

function again() {
  recordings.again();
}

async function learn() {
  showError(null);
  try {
    const answer = await fetch("labels", { headers });
    const found = await answer.json();
    if (!answer.ok) return showError(found);
    known = found;
  } catch {
    return showError(NO_SERVER);
  }
  byId("hint").textContent = hint();
  thresholds.show(known);
  const some = known.labels.slice(0, 12).map((label) => make("li", { textContent: label, title: label }));
  if (known.labels.length > some.length) {
    some.push(make("li", { textContent: `and ${known.labels.length - some.length} more` }));
  }
  document.querySelectorAll(".known").forEach((old) => old.remove());
  if (!known.background) {
    const text = "It was trained without background, so it calls noise one of these. Train it again, without --no-gate.";
    byId("lead").after(make("p", { className: "known", textContent: text }));
  }
  byId("lead").after(make("ul", { className: "known", "aria-label": "Classes that it knows" }, ...some));
}

function hint() {
  const minutes = known.max_seconds / 60;
  const long = minutes >= 1 ? `${Number(minutes.toFixed(1))} min` : `${known.max_seconds} s`;
  return `or drop some here. WAV, FLAC, MP3, OGG, AIFF, to ${known.max_mb} MB and ${long}.`;
}

// --- showing the answer ---------------------------------------------------------------

function show(body, blob, name) {
  const same = prediction?.blob === blob;
  prediction = { ...body, blob, name };
  part = null;
  for (const { label } of body.events) if (!hues.has(label)) hues.set(label, hues.size);
  byId("result").hidden = false;
  // Not body.file: browsers send a quote in a name as %22.
  byId("file-name").textContent = name;
  const kilohertz = Number((body.sample_rate / 1000).toFixed(2));
  byId("facts").textContent = `${body.duration.toFixed(1)} s, ${kilohertz} kHz`;
  byId("seek").max = body.duration;
  byId("warnings").hidden = !body.warnings.length;
  byId("warnings").replaceChildren(...body.warnings.map((text) => make("li", { textContent: sentence(text) })));
  figure.show(body, known.labels);
  showClasses(body);
  showEvents(body.events);
  if (!same) {
    playable = true;
    byId("no-sound").hidden = true;
    byId("play").disabled = byId("seek").disabled = false;
    player.load(blob);
  }
  moved(same ? audio.currentTime : 0, player.playing);
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function summary({ classes, heard, events }) {
  const [likeliest] = Object.keys(classes);
  const named = heard.length || known.multilabel ? heard : [likeliest];
  const count = `${events.length} event${events.length === 1 ? "" : "s"}`;
  return [...named.map((label) => `${label} ${score(classes[label])}`), count].join(", ");
}

function showClasses({ classes, heard }) {
  byId("classes").classList.toggle("several", known.multilabel);
  byId("classes").replaceChildren(...Object.entries(classes).map(([label, value]) => {
    const bar = make("span", { className: "bar", "data-hue": hueOf(label), "aria-hidden": "true" }, make("span"));
    bar.firstChild.style.width = `${100 * value}%`;
    const name = make("span", { className: "label", textContent: label, title: label });
    const className = known.multilabel && heard.includes(label) ? "heard" : "";
    return make("li", { className }, name, bar, make("span", { className: "value", textContent: score(value) }));
  }));
}

function showEvents(events) {
  byId("table").hidden = !events.length;
  byId("csv").disabled = !events.length;
  byId("none").hidden = events.length > 0;
  byId("none").textContent = byId("least").value === "0.2"
    ? "Nothing reaches this score."
    : "Nothing reaches the score that an event needs. A lower one can be chosen under the picture.";
  byId("rows").replaceChildren(...events.map((event) => {
    const words = `Play ${event.label} from ${event.start.toFixed(2)} s`;
    const play = make("button", { type: "button", className: "small", "aria-label": words }, make("span", { className: "icon-play", "aria-hidden": "true" }));
    play.addEventListener("click", () => playEvent(event));
    const name = make("td", {}, make("span", { className: "key", "data-hue": hueOf(event.label), "aria-hidden": "true" }), event.label);
    const numbers = [event.start.toFixed(2), event.end.toFixed(2), score(event.score)];
    return make("tr", {}, make("td", {}, play), name, ...numbers.map((text) => make("td", { textContent: text })));
  }));
}

byId("csv").addEventListener("click", () => {
  const rows = prediction.events.map((event) => [event.start, event.end, event.label, event.score]);
  const stem = prediction.name.replace(/\.[^.]*$/, "");
  download(csv(["start", "end", "label", "score"], rows), `${stem} events.csv`, "text/csv");
});

byId("all-csv").addEventListener("click", () => {
  const rows = recordings.answered.flatMap(({ name, body }) =>
    body.events.map((event) => [name, event.start, event.end, event.label, event.score]));
  download(csv(["file", "start", "end", "label", "score"], rows), "events.csv", "text/csv");
});

// --- playing --------------------------------------------------------------------------

byId("play").addEventListener("click", () => {
  part = null;
  player.toggle();
});
byId("seek").addEventListener("input", ({ target }) => seek(Number(target.value)));
document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("button, input, select, a, [role=region]");
  if (event.key === " " && !busy && prediction && playable) {
    event.preventDefault();
    part = null;
    player.toggle();
  }
});

function seek(seconds) {
  if (!playable) return;
  part = null;
  player.seek(seconds);
}

function playEvent(event) {
  if (!playable) return;
  part = event;
  player.playPart(event.start, event.end);
}

function moved(seconds, playing) {
  if (!playing) part = null;
  const button = byId("play");
  button.classList.toggle("on", playing);
  button.setAttribute("aria-label", playing ? "Pause" : "Play");
  const total = prediction?.duration ?? 0;
  byId("seek").value = seconds;
  byId("seek").setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(total)}`);
  byId("clock").textContent = `${clock(seconds)} / ${clock(total)}`;
  figure.move(seconds, part, playing);
}

// --- messages -------------------------------------------------------------------------

function say(text, busy = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("busy", busy);
}

function showError(problem) {
  byId("error").hidden = !problem;
  byId("cause").textContent = problem?.cause ?? "";
  byId("cure").textContent = problem?.cure ?? "";
  byId("retry").hidden = !problem?.again;
}

document.querySelector("a.skip").addEventListener("click", (event) => {
  // A token is behind the #: to go to #main would lose it at the next reload.
  event.preventDefault();
  byId("main").focus();
});
learned = learn();
