// The microphone as a 16-bit mono WAV file at the device's own rate.

const HEADER = 44; // bytes

/** Why there is no microphone, in words for people. */
export function microphoneProblem(error) {
  const known = {
    NotAllowedError: ["The browser did not allow the microphone", "Allow it for this page, by the symbol beside the address."],
    NotFoundError: ["There is no microphone", "Plug one in, or choose a file."],
    NotReadableError: ["The microphone is in use by another program", "Close that, then try again."],
    InsecureError: ["Browsers give a page the microphone only over https or on the same computer", "Open this page on the computer that serves it, or choose a file."],
  };
  const [cause, cure] = known[error.name] ?? [`The microphone failed: ${error.message}`, "Choose a file."];
  return { cause, cure };
}

/**
 * Start to record.
 * @param {{max_seconds: number, max_mb: number}} limits of the server; `onFull` is called when one is reached
 * @param {(seconds: number, level: number) => void} onLevel level is the peak, 0 to 1
 * @param {() => void} onFull
 * @returns {Promise<{recent: (seconds: number) => Blob | null, stop: () => Promise<Blob>, cancel: () => void}>}
 */
export async function startRecording(limits, onLevel, onFull) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw Object.assign(new Error("no secure context"), { name: "InsecureError" });
  }
  // What helps speech on the phone would distort the sounds that we classify.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  const most = Math.min(limits.max_seconds * context.sampleRate, (limits.max_mb * 1e6 - HEADER) / 2);
  const blocks = [];
  let samples = 0;
  const close = () => {
    for (const track of stream.getTracks()) track.stop();
    context.close();
  };
  try {
    await context.audioWorklet.addModule("page/tap.js");
  } catch (error) {
    close();
    throw error;
  }
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
  let finished;
  const all = new Promise((resolve) => (finished = resolve));
  tap.port.onmessage = ({ data }) => {
    if (data === null) return finished();
    if (samples + data.length > most) return onFull();
    blocks.push(data);
    samples += data.length;
    onLevel(samples / context.sampleRate, peak(data));
  };
  context.createMediaStreamSource(stream).connect(tap);
  return {
    /** The last seconds as a file; null before the first of them is full. */
    recent(seconds) {
      let count = 0;
      let first = blocks.length;
      while (first > 0 && count < seconds * context.sampleRate) count += blocks[(first -= 1)].length;
      return count < context.sampleRate ? null : wav(blocks.slice(first), count, context.sampleRate);
    },
    async stop() {
      tap.port.postMessage("end");
      await all;
      close();
      return wav(blocks, samples, context.sampleRate);
    },
    cancel: close,
  };
}

function peak(block) {
  let highest = 0;
  for (const value of block) highest = Math.max(highest, Math.abs(value));
  return highest;
}

/** Samples in [-1, 1] as a WAV file (RIFF, PCM, 16 bit, mono). */
function wav(blocks, samples, rate) {
  const view = new DataView(new ArrayBuffer(HEADER + 2 * samples));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER - 8 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  let at = HEADER;
  for (const block of blocks) {
    for (const value of block) {
      view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, value))), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
