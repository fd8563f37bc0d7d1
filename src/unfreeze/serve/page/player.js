// Plays the recording, all of it or a part. The browser's own audio element streams the
// file, so that ten minutes of stereo do not become 230 MB of samples.

export class Player {
  /**
   * @param {HTMLAudioElement} audio
   * @param {(seconds: number, playing: boolean) => void} onMove called as the position moves
   * @param {() => void} onBroken called when the browser cannot play the file
   */
  constructor(audio, onMove, onBroken) {
    this.audio = audio;
    this.onMove = onMove;
    this.end = null;
    this.url = null;
    for (const name of ["play", "pause", "seeked", "ended"]) {
      audio.addEventListener(name, () => this.#report());
    }
    // Frames are not drawn in a hidden tab; this event comes there, too.
    audio.addEventListener("timeupdate", () => this.#stopAtEnd());
    audio.addEventListener("play", () => this.#follow());
    audio.addEventListener("error", () => this.url && onBroken());
  }

  load(blob) {
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.end = null;
    this.url = URL.createObjectURL(blob);
    this.audio.src = this.url;
  }

  get playing() {
    return !this.audio.paused && !this.audio.ended;
  }

  toggle() {
    if (this.playing) this.audio.pause();
    else this.#play(null);
  }

  /** Play from start to end, in seconds, then stop. */
  playPart(start, end) {
    this.audio.currentTime = start;
    this.#play(end);
  }

  pause() {
    this.audio.pause();
  }

  seek(seconds) {
    this.end = null;
    this.audio.currentTime = seconds;
  }

  #play(end) {
    this.end = end;
    // Refused when the file cannot be played, and when pause() comes at once: both are shown.
    this.audio.play().catch(() => this.#report());
  }

  #follow() {
    const step = () => {
      this.#stopAtEnd();
      this.#report();
      if (this.playing) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #stopAtEnd() {
    if (this.end !== null && this.audio.currentTime >= this.end) {
      this.audio.pause();
      this.end = null;
    }
  }

  #report() {
    this.onMove(this.audio.currentTime, this.playing);
  }
}
