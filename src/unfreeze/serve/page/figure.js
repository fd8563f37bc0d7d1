// The spectrogram and, under it on the same time axis, a lane of events for each class.

import { byId, clock, make, score, spoken } from "./text.js";

const ZOOMS = [1, 2, 4, 8, 16];
const TICKS_HZ = [250, 500, 1000, 2000, 4000];
const TICK_ROOM = 40; // pixels
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600];

// From silence to loud: night, violet, red, amber, pale. Lightness rises steadily, so
// that the picture reads the same without colours.
const STOPS = [[8, 10, 28], [46, 20, 94], [118, 28, 112], [188, 52, 84], [236, 108, 42], [250, 186, 60], [253, 252, 205]];
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (STOPS.length - 1);
  const from = Math.min(Math.floor(place), STOPS.length - 2);
  return [0, 1, 2].map((i) => STOPS[from][i] + (place - from) * (STOPS[from + 1][i] - STOPS[from][i]));
});

export class Figure {
  /**
   * @param {(event: object) => void} onEvent called with the event to play
   * @param {(seconds: number) => void} onSeek called with a place in time
   * @param {(label: string) => number | string} hueOf the hue of a class
   */
  constructor(onEvent, onSeek, hueOf) {
    this.onEvent = onEvent;
    this.hueOf = hueOf;
    this.zoom = 0;
    this.duration = 0;
    this.part = 0; // of the duration, where the cursor is
    this.buttons = [];
    const canvas = byId("canvas");
    canvas.addEventListener("click", ({ offsetX }) =>
      onSeek((offsetX / canvas.clientWidth) * this.duration));
    byId("lanes").addEventListener("keydown", (event) => this.#walk(event));
    byId("zoom-in").addEventListener("click", () => this.#setZoom(this.zoom + 1));
    byId("zoom-out").addEventListener("click", () => this.#setZoom(this.zoom - 1));
    new ResizeObserver(() => this.#drawAxis()).observe(byId("plot"));
  }

  /** Show a prediction; the lanes are in the order of `labels`. */
  show(prediction, labels) {
    this.duration = prediction.duration;
    byId("gutter").replaceChildren(make("div", { className: "pitch" }));
    this.#drawPicture(prediction);
    this.#drawLanes(prediction.events, labels);
    this.move(0, null, false);
    this.#setZoom(0);
  }

  /** Put the cursor to a place, and mark the event that is played. */
  move(seconds, playing, follow) {
    this.part = this.duration ? Math.min(seconds / this.duration, 1) : 0;
    byId("cursor").style.left = `${100 * this.part}%`;
    for (const { button, event } of this.buttons) {
      button.classList.toggle("playing", event === playing);
    }
    const scroll = byId("scroll");
    const x = this.part * scroll.scrollWidth;
    if (follow && (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth)) {
      scroll.scrollLeft = x - 0.1 * scroll.clientWidth;
    }
  }

  #drawPicture({ spectrogram, duration }) {
    const { columns, bands, low_hz, high_hz, seconds } = spectrogram;
    const levels = Uint8Array.from(atob(spectrogram.levels), (c) => c.charCodeAt(0));
    // The last column may reach beyond the recording's end.
    const width = Math.max(1, Math.min(columns, Math.round((columns * duration) / seconds)));
    const canvas = byId("canvas");
    canvas.width = width;
    canvas.height = bands;
    canvas.setAttribute("aria-label", `Spectrogram: ${spoken(duration)}, ${low_hz} to ${high_hz} hertz. Click to go to a place.`);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, bands);
    for (let x = 0; x < width; x += 1) {
      for (let band = 0; band < bands; band += 1) {
        const at = 4 * ((bands - 1 - band) * width + x);
        image.data.set(COLOURS[levels[x * bands + band]], at);
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    // Mel scale (HTK), as the network's front end has it.
    const mel = (hertz) => Math.log1p(hertz / 700);
    byId("gutter").firstElementChild.replaceChildren(...TICKS_HZ.map((hertz) => {
      const tick = make("span", { textContent: hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz` });
      tick.style.bottom = `${(100 * (mel(hertz) - mel(low_hz))) / (mel(high_hz) - mel(low_hz))}%`;
      return tick;
    }));
  }

  #drawLanes(events, labels) {
    const lanes = byId("lanes");
    lanes.replaceChildren();
    this.buttons = [];
    for (const label of labels.filter((name) => events.some((event) => event.label === name))) {
      const hue = this.hueOf(label);
      byId("gutter").append(make("div", { className: "name", textContent: label, title: label, "data-hue": hue }));
      const track = make("div", { className: "track" });
      for (const event of events.filter((one) => one.label === label)) {
        const words = `${label}, ${event.start.toFixed(2)} to ${event.end.toFixed(2)} s, score ${score(event.score)}`;
        const button = make("button", { type: "button", className: "event", title: words, tabIndex: -1, "aria-label": `Play ${words}`, "data-hue": hue });
        button.style.left = `${(100 * event.start) / this.duration}%`;
        button.style.width = `${(100 * (event.end - event.start)) / this.duration}%`;
        button.style.setProperty("--strength", event.score);
        button.addEventListener("click", () => this.onEvent(event));
        this.buttons.push({ button, event });
        track.append(button);
      }
      const name = make("div", { className: "inner-name", textContent: label, "data-hue": hue, "aria-hidden": "true" });
      lanes.append(make("div", { className: "lane" }, name, track));
    }
    // One stop for the Tab key; the arrow keys go on from there, in the order of time.
    this.buttons.sort((a, b) => a.event.start - b.event.start || a.event.end - b.event.end);
    if (this.buttons.length) this.buttons[0].button.tabIndex = 0;
  }

  #walk(event) {
    const at = this.buttons.findIndex(({ button }) => button === document.activeElement);
    const last = this.buttons.length - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = this.buttons[Math.max(0, Math.min(to, last))].button;
    this.buttons[at].button.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  #setZoom(step) {
    const scroll = byId("scroll");
    this.zoom = Math.max(0, Math.min(step, ZOOMS.length - 1));
    byId("plot").style.width = `${100 * ZOOMS[this.zoom]}%`;
    byId("zoom").textContent = `${ZOOMS[this.zoom]}×`;
    byId("zoom-out").disabled = this.zoom === 0;
    byId("zoom-in").disabled = this.zoom === ZOOMS.length - 1;
    // Around the cursor: what one wants to see closely is what one has just heard.
    scroll.scrollLeft = this.part * scroll.scrollWidth - scroll.clientWidth / 2;
    this.#drawAxis();
  }

  #drawAxis() {
    const room = byId("plot").clientWidth;
    if (!this.duration || !room) return;
    const step = TICKS_S.find((seconds) => (seconds / this.duration) * room >= 64) ?? TICKS_S.at(-1);
    const ticks = [];
    for (let n = 0; n * step <= this.duration; n += 1) {
      // One that does not fit before the end would be cut.
      if (n && room * (1 - (n * step) / this.duration) < TICK_ROOM) break;
      const tick = make("span", { textContent: step < 1 ? `${(n * step).toFixed(1)}` : clock(n * step).replace(/\.0$/, "") });
      tick.style.left = `${(100 * n * step) / this.duration}%`;
      ticks.push(tick);
    }
    byId("axis").replaceChildren(...ticks);
  }
}
