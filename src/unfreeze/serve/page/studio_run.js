// The training that is under way, and the runs: what the server knows, asked again and again.

import { ask, complain, say, showCommand } from "./studio_ask.js";
import { byId, make } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 400, HEIGHT = 180, LEFT = 40, BOTTOM = 22, TOP = 8;

/** What other parts need of the runs. */
export const watch = { names: [], running: "", formats: [], ended: () => {} };
const seen = { runs: "", state: "", charts: "", errands: "" };

/** Do a thing once the state is known, and show what went wrong. */
async function act(work) {
  try {
    complain("");
    await work();
    await follow();
  } catch (error) {
    complain(error.message);
  }
}

/** Ask for the state, show it, and ask again later. */
export async function follow() {
  clearTimeout(follow.timer);
  const asked = follow.asked = (follow.asked ?? 0) + 1;
  let wait = 3000;
  try {
    const state = await ask("state");
    // An answer to an earlier question is older than what is shown, or soon will be.
    if (asked !== follow.asked) return;
    if (seen.lost) complain("");
    seen.lost = false;
    watch.names = state.runs.map((run) => run.name);
    // Its folder is made only when the data have been read.
    watch.running = state.training?.state === "running" ? state.training.name : "";
    showTraining(state.training, state.runs);
    showRuns(state.runs, state.training);
    showErrands(state);
    const busy = state.training?.state === "running" || state.export?.state === "running" || state.listening?.state === "starting";
    wait = busy ? 1000 : 4000;
  } catch (error) {
    if (asked !== follow.asked) return;
    seen.lost = true;
    complain(error.message);
  }
  follow.timer = setTimeout(follow, wait);
}

const ENDED = { finished: "Finished:", interrupted: "Stopped:", failed: "Failed:" };

function showTraining(training, runs) {
  byId("now").hidden = !training;
  if (!training) return;
  const { name, state, work, rows = [], stages = [], stage } = training;
  const running = state === "running";
  byId("now-title").textContent = `${running ? "Training" : ENDED[state]} ${name}`;
  const done = rows.filter((row) => row.stage === stage).length;
  const number = stages.findIndex((one) => one.name === stage);
  const most = stages[number]?.epochs ?? 0;
  const epoch = rows.length ? rows[rows.length - 1].epoch : 0;
  const place = stage ? `stage ${stage}${stages.length > 1 ? ` (${number + 1} of ${stages.length})` : ""}${done ? `, epoch ${epoch} of at most ${most}` : ""}` : "";
  const share = work?.total ? work.done / work.total : done && most ? epoch / most : null;
  const text = running
    ? training.stopping ? "Stopping after this step. What is finished is kept. Stop again to stop at once."
      : [place, work ? `${work.title}${work.total ? `: ${work.done} of ${work.total}` : ""}` : ""].filter(Boolean).join("; ") || "Starting"
    : { finished: "The model is trained and tested.", interrupted: "What is finished is kept: resume it, and it ends with the same model.", failed: "" }[state];
  byId("now-text").textContent = [text, running ? "" : training.cause].filter(Boolean).join(" ");
  byId("now-bar").hidden = !running;
  if (share === null) byId("now-bar").removeAttribute("value");
  else byId("now-bar").value = share;
  byId("now-left").textContent = running && training.left ? `${work ? "About" : "At most"} ${inWords(training.left)} left for this ${work ? "part" : "stage"}.` : "";
  byId("stop").hidden = !running;
  byId("again").hidden = state !== "interrupted" || !watch.names.includes(name);
  const report = runs.find((run) => run.name === name)?.report;
  byId("now-report").hidden = state !== "finished" || !report;
  if (report) byId("now-report").href = report;
  byId("now").dataset.name = name;
  if (byId("now-command").textContent !== (training.command ?? "")) showCommand(byId("now-command"), training.command ?? "");
  byId("now-notes").hidden = !training.notes?.length;
  byId("now-notes").replaceChildren(...(training.notes ?? []).map((one) => make("li", { textContent: one })));
  byId("log-text").textContent = training.log;
  byId("log").hidden = !training.log;
  showCharts(name, rows, stages);
  // Only what is new is read aloud.
  const now = `${name} ${state} ${stage ?? ""}`;
  if (seen.state && seen.state !== now) {
    say(running ? `${name}: ${place || "starting"}` : `${byId("now-title").textContent}. ${byId("now-text").textContent}`);
    if (!running) watch.ended();
  }
  seen.state = now;
}

function inWords(seconds) {
  if (seconds < 100) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const SCORES = [["mean_average_precision", "Mean average precision"], ["balanced_accuracy", "Balanced accuracy"], ["clip_accuracy", "Accuracy of clips"], ["accuracy", "Accuracy"]];

function showCharts(name, rows) {
  const key = `${name} ${rows.length} ${rows.length ? JSON.stringify(rows[rows.length - 1]) : ""}`;
  if (seen.charts === key) return;
  seen.charts = key;
  byId("epochs").hidden = !rows.length;
  const has = (one) => rows.some((row) => one in row || `val_${one}` in row);
  const score = SCORES.find(([one]) => has(one));
  const charts = [];
  if (has("loss")) charts.push(chart("Loss", "loss", rows));
  if (score) charts.push(chart(score[1], score[0], rows));
  byId("charts").replaceChildren(...charts);
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const shownRows = rows.slice(-200);
  const cell = (value) => (typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value ?? ""));
  byId("epoch-table").replaceChildren(
    make("thead", {}, make("tr", {}, ...columns.map((one) => make("th", { scope: "col", textContent: one })))),
    make("tbody", {}, ...shownRows.map((row) => make("tr", {}, ...columns.map((one) => make("td", { textContent: cell(row[one]) }))))));
}

/** A line for training and one for validation, over the epochs of all stages. */
function chart(title, name, rows) {
  const lines = [["train", "training", name], ["held", "validation", `val_${name}`]]
    .map(([kind, words, key]) => [kind, words, rows.map((row, x) => [x, row[key]]).filter(([, y]) => typeof y === "number")])
    .filter(([, , points]) => points.length);
  const values = lines.flatMap(([, , points]) => points.map(([, y]) => y));
  let low = name === "loss" ? 0 : Math.min(...values), high = Math.max(...values);
  if (name !== "loss") { low = Math.max(0, low - 0.05); high = Math.min(1, high + 0.05); }
  if (high - low < 1e-6) high = low + 1e-6;
  const most = Math.max(rows.length - 1, 1);
  const x = (value) => LEFT + (value / most) * (WIDTH - LEFT - 8);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const spoken = lines.map(([, words, points]) => `${words} from ${points[0][1].toPrecision(3)} to ${points[points.length - 1][1].toPrecision(3)}`).join(", ");
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over ${rows.length} epochs: ${spoken}` });
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(shape("line", { class: "axis-line", x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value) }),
      shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  rows.forEach((row, number) => {
    if (number && row.stage === rows[number - 1].stage) return;
    const at = x(number ? number - 0.5 : 0);
    if (number) svg.append(shape("line", { class: "stage-line", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    svg.append(shape("text", { x: at + 2, y: HEIGHT - 6 }, row.stage));
  });
  for (const [kind, , points] of lines) {
    if (points.length > 1) svg.append(shape("polyline", { class: `line ${kind}`, points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }));
    const [a, b] = points[points.length - 1];
    svg.append(shape("circle", { class: `dot ${kind}`, cx: x(a), cy: y(b), r: 4 }));
  }
  const keys = lines.map(([kind, words, points]) => make("span", {}, make("span", { className: `swatch ${kind}`, "aria-hidden": "true" }), `${words} ${points[points.length - 1][1].toPrecision(3)}`));
  return make("figure", {}, make("figcaption", {}, make("b", { textContent: title }), ...keys), svg);
}

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** The cards of runs are made anew only when one has changed: a choice in one must stay. */
function showRuns(runs, training) {
  const running = training?.state === "running" ? training.name : "";
  const key = JSON.stringify([runs, running]);
  if (seen.runs === key) return;
  const [focused, inside] = [document.activeElement?.id ?? "", byId("runs").contains(document.activeElement)];
  seen.runs = key;
  seen.errands = "";
  byId("no-runs").hidden = runs.length > 0;
  byId("runs").replaceChildren(...runs.map((run, number) => card(run, number, run.name === running)));
  if (inside && focused) byId(focused)?.focus();
}

function card(run, number, running) {
  const score = "value" in run ? `${run.score.replaceAll("_", " ")} ${run.value.toFixed(3)} on the ${run.part} clips` : run.state === "finished" ? "not tested" : "";
  const state = running ? "training" : run.state;
  const about = [state, score, run.classes ? `${run.classes} classes of ${run.data}` : ""].filter(Boolean).join("; ");
  const title = make("h3", { id: `run-${number}`, textContent: run.name });
  const parts = [title, make("p", { className: run.state === "damaged" ? "bad" : "facts", textContent: run.cause ?? about })];
  const button = (text, id, work, kind = "") => {
    const made = make("button", { type: "button", textContent: text, className: kind, id: `${id}-${number}`, "aria-describedby": `run-${number}` });
    made.addEventListener("click", () => act(work));
    return made;
  };
  if (run.state === "finished") {
    const id = `format-${number}`;
    const select = make("select", { id }, ...watch.formats.map((one) => make("option", { value: one.name, textContent: one.problem ? `${one.title} (not installed)` : one.title, disabled: Boolean(one.problem) })));
    select.value = watch.formats.find((one) => !one.problem)?.name ?? "";
    parts.push(
      make("p", { className: "actions" },
        ...(run.report ? [reportLink(run, `report-${number}`)] : []),
        button("Listen live", "listen", () => ask("listen", { name: run.name })),
        make("label", { className: "hidden", htmlFor: id, textContent: `Format of the export of ${run.name}` }), select,
        button("Export", "export", () => ask("export", { name: run.name, format: select.value }))),
      make("p", { className: "note", role: "status", "data-errand": run.name, hidden: true }));
  } else if (run.state === "interrupted" && !running) {
    parts.push(make("p", { className: "actions" }, button("Resume", "resume", () => resume(run.name), "primary")));
  }
  if (run.state !== "damaged") parts.push(inTerminal(run.name));
  return make("li", { "aria-labelledby": `run-${number}` }, ...parts);
}

function reportLink(run, id) {
  return make("a", { id, className: "button primary", href: run.report, target: "_blank", rel: "noopener", textContent: "Open the report", "aria-label": `Open the report of ${run.name}` });
}

function inTerminal(name) {
  const code = make("code", {});
  const details = make("details", {}, make("summary", { textContent: "The same in a terminal" }), make("pre", { tabIndex: 0, role: "region", "aria-label": `Commands for ${name}` }, code));
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    try {
      showCommand(code, Object.values(await ask("commands", { name })).join("\n"));
    } catch (error) {
      code.textContent = error.message;
    }
  });
  return details;
}

function showErrands({ export: exported, listening }) {
  const key = JSON.stringify([exported, listening]);
  if (seen.errands === key) return;
  seen.errands = key;
  for (const line of document.querySelectorAll("[data-errand]")) {
    const name = line.dataset.errand;
    const parts = [];
    if (listening?.run === name) {
      if (listening.state === "running") parts.push(make("a", { href: listening.url, target: "_blank", rel: "noopener noreferrer", textContent: "Open the page that listens" }), " (it ends with the studio). ");
      else parts.push(listening.state === "starting" ? "Loading the model to listen. " : `The page that listens has ended: ${listening.cause} `);
    }
    if (exported?.run === name) {
      const size = exported.bytes ? `, ${(exported.bytes / 1e6).toFixed(1)} MB` : "";
      parts.push({
        running: `Exporting as ${exported.format}, and comparing it with the model.`,
        finished: `Exported: ${exported.file} in the run's folder${size}. It agrees with the model.`,
        failed: `The export failed: ${exported.cause}`,
      }[exported.state]);
    }
    line.hidden = !parts.length;
    line.replaceChildren(...parts);
  }
}

async function resume(name) {
  await ask("resume", { name });
  say(`The training of ${name} continues.`);
  byId("now").focus();
}

byId("stop").addEventListener("click", () => act(() => ask("stop", { name: byId("now").dataset.name })));
byId("again").addEventListener("click", () => act(() => resume(byId("now").dataset.name)));
