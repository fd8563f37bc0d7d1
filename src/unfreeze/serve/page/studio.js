// The page of the studio: choose recordings, see what is in them, choose options, start. Nothing
// is decided here: each step asks the server, which runs a command and says which.

import { ask, complain, say, showCommand, tabToken } from "./studio_ask.js";
import { byId, make } from "./text.js";
import { follow, watch } from "./studio_run.js";

const shown = { about: null, place: null, data: null, waiting: 0, last: Promise.resolve() };

/** Do one thing after the other, none left out, and show what went wrong with each. */
function doing(work) {
  shown.waiting += 1;
  byId("main").ariaBusy = "true";
  shown.last = shown.last.then(async () => {
    try {
      complain("");
      await work();
    } catch (error) {
      complain(error.message);
    }
    shown.waiting -= 1;
    if (!shown.waiting) byId("main").ariaBusy = "false";
  });
}

async function browse(path) {
  const place = await ask("browse", { path });
  shown.place = place;
  const steps = [{ name: shown.about.name, path: "" }, ...place.above];
  byId("path").replaceChildren(...steps.map((step, number) => {
    const last = number === steps.length - 1;
    const button = make("button", { type: "button", textContent: step.name, ...(last ? { "aria-current": "page" } : {}) });
    button.addEventListener("click", () => doing(() => browse(step.path)));
    return make("li", {}, button);
  }));
  byId("here").textContent = `${place.holds}${place.left_out ? `; ${place.left_out} more are not listed` : ""}`;
  const items = [...place.folders.map((one) => entry(one, "folder")), ...place.tables.map((one) => entry(one, "table"))];
  byId("places").replaceChildren(...items);
  byId("use").disabled = !place.usable;
  byId("use-hint").hidden = place.usable;
  if (byId("add-folder").dataset.own !== "yes") byId("add-folder").value = place.path || (place.usable ? "" : "sounds");
}

function entry(one, sort) {
  const button = make("button", { type: "button" },
    make("span", { className: `sort ${sort === "table" ? "table-sort" : ""}`, "aria-hidden": "true" }),
    make("span", { textContent: one.name }),
    make("span", { className: "holds", textContent: sort === "table" ? "table: use it" : one.holds }));
  button.addEventListener("click", () => doing(async () => {
    if (sort === "table") return choose(one.path);
    await browse(one.path);
    (byId("places").querySelector("button") ?? byId("path").querySelector("[aria-current]")).focus();
  }));
  return make("li", {}, button);
}

/** Look at data, and offer to train on them. */
async function choose(path) {
  shown.data = path;
  byId("seen").hidden = byId("training").hidden = true;
  say("Reading the recordings.", true);
  try {
    const { seen, cause, command } = await ask("inspect", { data: path, options: chosen() });
    showSeen(seen, cause, command);
    byId("seen").hidden = byId("training").hidden = false;
    if (byId("name").dataset.own !== "yes") byId("name").value = freeName(path);
    await plan();
    say(`${seen.clips} recordings of ${Object.keys(seen.classes).length} classes.`);
    byId("seen").focus();
  } catch (error) {
    say("");
    throw error;
  }
}

function showSeen(seen, cause, command) {
  const hours = seen.hours >= 1 ? `${seen.hours.toFixed(1)} hours` : `${(60 * seen.hours).toFixed(1)} minutes`;
  const rates = Object.entries(seen.sample_rates).map(([rate, count]) => `${rate} Hz (${count})`).join(", ");
  byId("seen-text").textContent = `${seen.data}: ${seen.clips} clips in ${seen.groups} groups, ${hours}. Sample rates: ${rates}.`;
  const parts = ["train", "validation", "test"];
  const head = make("tr", {}, ...["Class", "Clips", "Minutes", "Train", "Validation", "Test"].map((text) => make("th", { scope: "col", textContent: text })));
  const rows = Object.entries(seen.classes).map(([label, row]) => make("tr", {},
    ...[label, row.clips, (row.seconds / 60).toFixed(1), ...parts.map((part) => row[part])].map((value) => make("td", { textContent: String(value) }))));
  byId("seen-table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  const notes = [...(cause ? [cause] : []), ...seen.notes];
  byId("seen-notes").hidden = !notes.length;
  byId("seen-notes").replaceChildren(...notes.map((text) => make("li", { textContent: text })));
  const problems = seen.problems.map((one) => make("li", {}, make("b", { textContent: one.path }), `: ${one.cause}${one.fatal ? " (left out)" : ""}`));
  if (seen.more_problems) problems.push(make("li", { textContent: `and ${seen.more_problems} more; the command lists all` }));
  const warnings = seen.problems.filter((one) => !one.fatal).length;
  const title = `${seen.bad} left out, ${warnings} warning${warnings === 1 ? "" : "s"}`;
  byId("seen-problems").replaceChildren(...(problems.length
    ? [make("details", { open: problems.length < 8 }, make("summary", { textContent: title }), make("ul", { className: "notes" }, ...problems))]
    : [make("p", { className: "note", textContent: "No problems found." })]));
  showCommand(byId("inspect-command"), command);
}

function freeName(path) {
  const own = (path.split("/").pop() || shown.about.name).replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_.+-]+/gu, "-").replace(/^[^\p{L}\p{N}_]+/u, "");
  const base = own.slice(0, 50) || "run";
  const taken = new Set([...watch.names, watch.running]);
  let number = 1;
  while (taken.has(`${base}-${number}`)) number += 1;
  return `${base}-${number}`;
}

/** What differs from the defaults. */
function chosen() {
  const found = {};
  for (const field of shown.about.fields) {
    const input = byId(`option-${field.name}`);
    const value = field.kind === "flag" ? input.checked
      : input.value === "" ? null
      : field.kind === "whole" || field.kind === "number" ? Number(input.value)
      : input.value;
    if (value !== null && value !== field.default) found[field.name] = value;
  }
  return found;
}

async function plan() {
  if (shown.data === null || byId("training").hidden) return;
  const name = byId("name").value.trim();
  try {
    const found = await ask("plan", { data: shown.data, name, options: chosen() });
    showCommand(byId("train-command"), found.train);
    byId("problem").textContent = found.problem ?? "";
    byId("start").disabled = Boolean(found.problem);
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("start").disabled = true;
  }
}

function makeField(field) {
  const id = `option-${field.name}`;
  const help = make("p", { id: `${id}-help`, textContent: field.about?.[field.default] ?? field.help });
  const about = { id, "aria-describedby": `${id}-help` };
  let label;
  if (field.kind === "flag") {
    label = make("label", { className: "check" }, make("input", { ...about, type: "checkbox", checked: field.default }), make("span", { textContent: field.title }));
  } else if (field.kind === "choice") {
    const select = make("select", about, ...field.choices.map((name) => make("option", { value: name, textContent: name === field.default ? `${name} (default)` : name })));
    select.value = field.default;
    if (field.about) select.addEventListener("change", () => { help.textContent = field.about[select.value]; });
    label = make("label", {}, field.title, select);
  } else {
    const number = field.kind !== "text";
    const input = make("input", { ...about, type: number ? "number" : "text", autocomplete: "off", value: field.default ?? "" });
    if (number) Object.assign(input, { min: field.least ?? "", max: field.most ?? "", step: field.kind === "whole" ? "1" : "any" });
    else input.maxLength = 200;
    label = make("label", {}, field.title, input);
  }
  label.htmlFor = id;
  return make("div", { className: "field" }, label, help);
}

const isTable = (file) => shown.about.tables.some((ending) => file.name.toLowerCase().endsWith(ending));

// Files are sent one after the other: each is whole on disk before the next begins, and tables,
// which name recordings, come last.
async function add(given) {
  const files = [...given].sort((a, b) => isTable(a) - isTable(b));
  const folder = byId("add-folder").value.trim(), label = byId("add-class").value.trim();
  if (!label && !files.every(isTable)) {
    byId("add-class").focus();
    throw new Error("Name the class first: what is heard in these files.");
  }
  byId("added").hidden = false;
  let kept = 0;
  for (const file of files) {
    const item = make("li", { textContent: `${file.name}: sending` });
    byId("added").prepend(item);
    try {
      if (file.size > shown.about.max_mb * 1e6) throw new Error(`larger than ${shown.about.max_mb} MB`);
      const form = new FormData();
      form.append("file", file);
      const query = new URLSearchParams({ folder, label });
      const answer = await fetch(`studio/upload?${query}`, { method: "POST", headers: { "X-Unfreeze-Token": tabToken }, body: form });
      const found = await answer.json();
      if (!answer.ok) throw new Error(`${found.cause.replace(/([^.!?])$/, "$1.")} ${found.cure}`);
      const labels = found.labels === undefined ? "" : `: ${found.labels} label${found.labels === 1 ? "" : "s"}`;
      item.textContent = `${found.kept}${labels}${found.new ? "" : " (was there already)"}`;
      kept += 1;
    } catch (error) {
      item.className = "bad";
      item.textContent = `${file.name}: ${error.message}`;
    }
  }
  say(`${kept} of ${files.length} files are in ${[folder, label].filter(Boolean).join("/") || shown.about.name}.`);
  await browse(shown.place.path);
}

const drop = byId("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    const files = kind === "drop" ? [...event.dataTransfer.files] : [];
    if (files.length) doing(() => add(files));
  });
}
byId("pick").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  const files = [...byId("files").files];
  byId("files").value = "";
  if (files.length) doing(() => add(files));
});
for (const name of ["add-folder", "name"]) byId(name).addEventListener("input", () => { byId(name).dataset.own = "yes"; });
byId("use").addEventListener("click", () => doing(() => choose(shown.place.path)));
byId("look-again").addEventListener("click", () => doing(() => choose(shown.data)));
byId("form").addEventListener("input", () => {
  clearTimeout(plan.timer);
  plan.timer = setTimeout(plan, 250);
});
byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  // A double click starts one training.
  byId("start").disabled = true;
  doing(async () => {
    try {
      await ask("train", { data: shown.data, name: byId("name").value.trim(), options: chosen() });
    } catch (error) {
      await plan();
      byId("start").focus();
      throw error;
    }
    await follow();
    byId("name").dataset.own = "no";
    byId("name").value = freeName(shown.data);
    await plan();
    say("The training has begun.");
    byId("now").focus();
  });
});
document.querySelector("a.skip").addEventListener("click", (event) => {
  // The token is behind the #: to go to #main would lose it at the next reload.
  event.preventDefault();
  byId("main").focus();
});
doing(async () => {
  const about = await ask("about");
  shown.about = { ...about, name: about.folder.split("/").pop() || "/" };
  byId("folder").textContent = about.folder;
  byId("runs-folder").textContent = `In ${about.runs}.`;
  byId("studio-command").textContent = about.command;
  byId("drop-hint").textContent = `or drop them here: sound files of at most ${about.max_mb} MB, and tables of labels (CSV, Raven, Audacity) of recordings that are there`;
  for (const field of about.fields) byId(field.in_sight ? "in-sight" : "options").append(makeField(field));
  watch.formats = about.formats;
  watch.ended = plan;
  await follow();
  await browse("");
});
