"""Files to patches with librosa. Args: folder, front_end (YAMNet's constants).

Its mel triangles are straight in hertz, those of YAMNet in mel: same work, results
within 0.013 of ours.
"""

import json
from pathlib import Path

import librosa
import numpy as np


def prepare(args):
    """All files a round, and once before: librosa compiles some of its functions."""
    listed = json.loads((Path(args["folder"]) / "files.json").read_text())
    front = args["front_end"]

    def run():
        patches = np.concatenate([patches_of(path, front) for path in listed["files"]])
        return {"items": listed["seconds"], "patches": len(patches)}

    run()
    return run


def patches_of(path, front):
    """(patches, 96, 64) of a file."""
    waveform, _ = librosa.load(path, sr=front["sample_rate"], mono=True)
    mel = librosa.feature.melspectrogram(
        y=padded(waveform, front),
        sr=front["sample_rate"],
        n_fft=front["fft"],
        win_length=front["window"],
        hop_length=front["hop"],
        center=False,
        power=1.0,
        n_mels=front["bands"],
        fmin=front["low_hz"],
        fmax=front["high_hz"],
        htk=True,
        norm=None,
    )
    return cut(np.log(mel.T + front["log_offset"]), front)


def padded(waveform, front):
    """To whole patches, as YAMNet pads; and for the window in the middle of the transform."""
    hop = front["patch_hop"] * front["hop"]
    extra = max(len(waveform) - front["min_samples"], 0)
    total = front["min_samples"] + -(-extra // hop) * hop
    side = (front["fft"] - front["window"]) // 2
    return np.pad(waveform, (side, total - len(waveform) + side))


def cut(frames, front):
    """Frames to overlapping patches."""
    starts = range(0, len(frames) - front["patch_frames"] + 1, front["patch_hop"])
    return np.stack([frames[start : start + front["patch_frames"]] for start in starts])
