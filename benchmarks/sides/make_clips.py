"""Writes a folder of synthetic recordings, 1 second each, 10 classes. Args: out, clips."""

import wave
from pathlib import Path

import numpy as np

RATE = 16_000
CLASSES = 10


def prepare(args):
    """Noise, cut at another place for each clip, so that no two are the same."""

    def run():
        out, count = Path(args["out"]), args["clips"]
        rng = np.random.default_rng(0)
        noise = rng.integers(-8000, 8000, RATE + count, dtype=np.int16)
        for label in range(CLASSES):
            (out / f"class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = out / f"class{number % CLASSES}" / f"{number:06}.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(noise[number : number + RATE].tobytes())
        return {"clips": count}

    return run
