// The recordings that were given, and what came back for each. One is asked about at a time.

import { byId, make } from "./text.js";

export class Recordings {
  /**
   * @param {(item: object, signal: AbortSignal) => Promise<object>} ask resolves to {body} or {problem}
   * @param {(item: object) => void} onShow called with the recording to show, which has been answered
   * @param {(item: object | null) => void} onAsk called with the one that is asked about now; null: none is
   * @param {(body: object) => string} summary of an answer, in words
   */
  constructor(ask, onShow, onAsk, summary) {
    Object.assign(this, { ask, onShow, onAsk, summary });
    this.items = []; // {blob, name, body, problem, waiting}
    this.shown = null;
    this.busy = null; // the item that is asked about
    this.request = null;
    byId("clear").addEventListener("click", () => this.#clear());
  }

  /** Take recordings; the first of them is shown as soon as it is answered. */
  add(files) {
    const given = files.map(({ blob, name }) => ({ blob, name, body: null, problem: null, waiting: true }));
    this.items.push(...given);
    this.shown = given[0];
    this.work();
  }

  /** Ask about all of them again, the one that is shown first. */
  again() {
    this.request?.abort();
    this.request = this.busy = null;
    for (const item of this.items) item.waiting ||= item.body !== null;
    this.work();
  }

  /** Go on with those that wait. */
  async work() {
    this.#draw();
    if (this.request) return;
    const item = this.shown?.waiting ? this.shown : this.items.find((one) => one.waiting);
    if (!item) return;
    const request = (this.request = new AbortController());
    this.busy = item;
    this.onAsk(item);
    this.#draw();
    const answer = await this.ask(item, request.signal);
    if (request.signal.aborted) return;
    this.request = this.busy = null;
    Object.assign(item, { body: null, problem: null }, answer);
    // Without a server the others would fail alike: all wait until it is tried again.
    const stuck = item.problem?.again ?? false;
    item.waiting = stuck;
    if (stuck) this.shown = item;
    this.onAsk(null);
    if (item === this.shown) this.onShow(item);
    if (stuck) this.#draw();
    else this.work();
  }

  /** Those that were answered, in the order in which they were given. */
  get answered() {
    return this.items.filter((item) => item.body);
  }

  #clear() {
    this.items = this.items.filter((item) => item === this.shown || item === this.busy);
    this.#draw();
  }

  #draw() {
    byId("recordings").hidden = this.items.length < 2;
    byId("all-csv").disabled = !this.answered.length;
    byId("items").replaceChildren(...this.items.map((item) => {
      const name = make("span", { className: "label", textContent: item.name, title: item.name });
      const told = make("span", { className: item.problem ? "told bad" : "told", textContent: this.#told(item) });
      const button = make("button", { type: "button", "aria-current": String(item === this.shown) }, name, told);
      button.addEventListener("click", () => {
        this.shown = item;
        if (!item.waiting) this.onShow(item);
        this.work();
      });
      return make("li", {}, button);
    }));
  }

  #told(item) {
    if (item === this.busy) return "listening …";
    if (item.problem) return item.problem.cause;
    if (item.waiting) return "waiting";
    return this.summary(item.body);
  }
}
