// Runs on the audio thread: hands each block of the microphone's first channel to the page.
class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.open = true;
    this.port.onmessage = () => {
      this.open = false;
      // After the last block, so that the page knows that it has all.
      this.port.postMessage(null);
    };
  }

  process([input]) {
    if (this.open && input.length) this.port.postMessage(input[0].slice());
    return this.open;
  }
}

registerProcessor("tap", Tap);
