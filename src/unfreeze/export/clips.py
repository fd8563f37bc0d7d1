"""The sounds that an export is compared and calibrated on: the run's own, or synthetic ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze import run_folder
from unfreeze.audio.decode import Resampler
from unfreeze.audio.decoders import Decoders
from unfreeze.audio.synth import CLASSES, synthesize
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError

MOST_TESTED = 50
MOST_CALIBRATED = 100
LONGEST = 10  # seconds of a recording that are used
HARD = "silence, a tone, and noise of three lengths"
_SEED = 0


@dataclass(frozen=True, eq=False)
class Sounds:
    """Waveforms, and where they are from.

    Attributes:
        waveforms: (samples,) float32 each, at the front end's sample rate.
        source: in words.
    """

    waveforms: tuple[np.ndarray, ...]
    source: str


def run_clips(run: Path | None, part: str, most: int, front_end: FrontEnd) -> Sounds:
    """Recordings of one part of a run, evenly spaced, or synthetic sounds in their place.

    Args:
        run: the run folder, None where there is none.
        part: "train", "validation" or "test".
        most: recordings to take.
        front_end: tells the sample rate.
    """
    waveforms = []
    with Decoders() as decoders:
        for path in _spaced(_paths(run, part), most):
            try:
                waveforms.append(_beginning(path, front_end.sample_rate, decoders))
            except DataError:
                continue  # gone or damaged since the training
    if waveforms:
        noun = "clip" if len(waveforms) == 1 else "clips"
        return Sounds(tuple(waveforms), f"{len(waveforms)} {part} {noun} of the run")
    rng = np.random.default_rng(_SEED)
    made = [synthesize(label, rng, front_end.sample_rate) for label in CLASSES]
    return Sounds(tuple(made), f"{len(made)} synthetic sounds (no {part} clips at hand)")


def hard_sounds(front_end: FrontEnd) -> tuple[np.ndarray, ...]:
    """The sounds of `HARD`: those on which front ends differ most, and odd lengths."""
    rng = np.random.default_rng(_SEED)
    second = front_end.sample_rate
    time = np.arange(second) / second
    sounds = (
        np.zeros(second),
        np.sin(2 * np.pi * 1000 * time),
        rng.uniform(-1, 1, second),
        0.1 * rng.normal(size=second // 10),
        # One sample more than three whole patches.
        0.1 * rng.normal(size=front_end.padded_samples(3 * second) + 1),
    )
    return tuple(sound.astype(np.float32) for sound in sounds)


def fitted(waveform: np.ndarray, samples: int | None) -> np.ndarray:
    """One row (1, samples), cut or padded with zeros where the length is fixed."""
    if samples is None:
        return waveform[np.newaxis]
    padded = np.zeros((1, samples), np.float32)
    padded[0, : len(waveform)] = waveform[:samples]
    return padded


def _beginning(path: Path, sample_rate: int, decoders: Decoders) -> np.ndarray:
    pieces, wanted = [np.zeros(0, np.float32)], LONGEST * sample_rate
    with decoders.waveform(path, Resampler(sample_rate)) as sound:
        for piece in sound.blocks:
            pieces.append(piece)
            if sum(map(len, pieces)) >= wanted:
                break
    return np.concatenate(pieces)[:wanted]


def _paths(run: Path | None, part: str) -> list[Path]:
    """Files of a part, as the run's table of splits names them; those that are still there."""
    if run is None:
        return []
    try:
        root, rows = run_folder.read_splits(run)
    except RunError:
        return []
    named = [root / row["path"] for row in rows if row["split"] == part]
    return [path for path in named if path.is_file()]


def _spaced(paths: list[Path], most: int) -> list[Path]:
    if len(paths) <= most:
        return paths
    return [paths[int(i)] for i in np.linspace(0, len(paths) - 1, most)]
