// A slider for the threshold of each class, with what it costs.

import { byId, make } from "./text.js";

const percent = (share) => `${Math.round(100 * share)} %`;
const alarms = (rate) => `${rate < 10 ? Number(rate.toFixed(1)) : Math.round(rate)} false alarm${rate === 1 ? "" : "s"}`;

export class Thresholds {
  /** @param {() => void} onChange called when a threshold has been moved */
  constructor(onChange) {
    this.onChange = onChange;
    this.known = { thresholds: {}, levels: [], costs: null };
    this.moved = new Map(); // from class to the number of its level
    byId("as-trained").addEventListener("click", () => {
      if (this.clear()) onChange();
    });
  }

  /** Show the sliders of a model, from the server's answer about its labels. */
  show(known) {
    this.known = known;
    this.moved.clear();
    byId("thresholds-note").textContent = known.costs
      ? "What each score costs was estimated when the model was trained, on recordings that it did not learn from."
      : "What each score costs is not known of this model.";
    byId("sliders").replaceChildren(...Object.keys(known.thresholds).map((label) => this.#slider(label)));
    this.#tellAll();
  }

  /** The scores of the classes whose slider was moved, as the server takes them. */
  get query() {
    return [...this.moved].map(([label, at]) => ["class_score", `${label}:${this.known.levels[at]}`]);
  }

  /** Put all sliders back; says whether one had been moved. */
  clear() {
    const any = this.moved.size > 0;
    this.moved.clear();
    for (const input of byId("sliders").querySelectorAll("input")) {
      input.value = this.#own(input.dataset.label);
      this.#tell(input);
    }
    this.#tellAll();
    return any;
  }

  /** The number of the level that a class's own threshold is, or the next above. */
  #own(label) {
    const { levels, thresholds } = this.known;
    const at = levels.findIndex((level) => level >= thresholds[label] - 1e-6);
    return at < 0 ? levels.length - 1 : at;
  }

  #slider(label) {
    const input = make("input", { type: "range", min: 0, max: this.known.levels.length - 1, step: 1, "data-label": label });
    input.value = this.#own(label);
    const costs = make("output", { className: "facts" });
    const name = make("span", { className: "label", textContent: label, title: label });
    const row = make("label", { className: "slider" }, name, input, costs);
    input.addEventListener("input", () => {
      this.moved.set(label, Number(input.value));
      this.#tell(input);
      this.#tellAll();
    });
    input.addEventListener("change", () => this.onChange());
    this.#tell(input, costs);
    return row;
  }

  #tell(input, output = input.nextElementSibling) {
    const { label } = input.dataset;
    const at = Number(input.value);
    const score = this.moved.has(label) ? this.known.levels[at] : this.known.thresholds[label];
    const words = [`from ${score > 0.99 ? score.toFixed(4) : score.toFixed(2)}`];
    const costs = this.known.costs?.[label];
    if (costs?.recall) words.push(`finds ${percent(costs.recall[at])}`);
    if (costs?.precision[at] != null) words.push(`${percent(costs.precision[at])} right`);
    if (costs?.false_alarms) words.push(`${alarms(costs.false_alarms[at])}/h`);
    output.textContent = words.join(", ");
    input.setAttribute("aria-valuetext", output.textContent);
  }

  #tellAll() {
    const inputs = [...byId("sliders").querySelectorAll("input")];
    const rates = inputs.map((input) => this.known.costs?.[input.dataset.label]?.false_alarms?.[Number(input.value)]);
    const whole = rates.length > 0 && rates.every((rate) => rate !== undefined);
    byId("all-alarms").textContent = whole ? `All classes: ${alarms(rates.reduce((a, b) => a + b))} in an hour of background.` : "";
    byId("as-trained").disabled = this.moved.size === 0;
  }
}
