"""The comparison of an export with its model, sound by sound, and its tolerances.

The sounds that an export is compared and calibrated on are the run's own clips or, if it
has none, synthetic ones; some hard sounds are always compared, too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unfreeze.audio.clip_model import front_end_layer
from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.demo_sounds import CLASSES, synthesize
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError
from unfreeze.export.program import EMBEDDINGS, PROBABILITIES, Runner
from unfreeze.pipeline import run_folder

MOST_TESTED = 50
MOST_CALIBRATED = 100
LONGEST = 10  # seconds used of a recording
HARD = "silence, a tone, and noise of three lengths"
_SEED = 0


@dataclass(frozen=True, eq=False)
class Sounds:
    """Waveforms, and where they come from.

    Attributes:
        waveforms: (samples,) float32 each, at the front end's sample rate.
        source: in words.
    """

    waveforms: tuple[np.ndarray, ...]
    source: str


def run_clips(run: Path | None, part: str, most: int, front_end: FrontEnd) -> Sounds:
    """Recordings of one part of a run, evenly spaced; without any, synthetic sounds.

    Args:
        run: the run folder; None if there is none.
        part: "train", "validation" or "test".
        most: maximum number of recordings.
        front_end: holds the sample rate.
    """
    waveforms = []
    with Decoders() as decoders:
        for path in _spaced(_paths(run, part), most):
            try:
                waveforms.append(_beginning(path, front_end.sample_rate, decoders))
            except DataError:
                continue  # removed or damaged since the training
    if waveforms:
        noun = "clip" if len(waveforms) == 1 else "clips"
        return Sounds(tuple(waveforms), f"{len(waveforms)} {part} {noun} of the run")
    rng = np.random.default_rng(_SEED)
    made = [synthesize(label, rng, front_end.sample_rate) for label in CLASSES]
    return Sounds(tuple(made), f"{len(made)} synthetic sounds (no {part} clips found)")


def hard_sounds(front_end: FrontEnd) -> tuple[np.ndarray, ...]:
    """The sounds that `HARD` names: those on which front ends differ most, and odd lengths."""
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
    """One row (1, samples), cut or padded with zeros if the length is fixed."""
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
    """Files of a part, from the run's table of splits; those that still exist."""
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


# A sound is decided if the first class leads the second by this much; only on such
# sounds does the top class have to agree.
DECIDED = 0.1
# Seconds to measure the speed of one model.
_MEASURING = 1.0


@dataclass(frozen=True)
class Tolerance:
    """How much an export may differ from its model.

    Attributes:
        largest: difference in a probability.
        embedding: difference in a number of an embedding, relative to the largest number.
        mean: over the sounds, of the largest difference in each.
        agreement: smallest share of the decided sounds with the same top class.
    """

    largest: float
    embedding: float
    mean: float
    agreement: float


TOLERANCES: dict[str | None, Tolerance] = {
    None: Tolerance(largest=1e-4, embedding=1e-4, mean=5e-5, agreement=1.0),
    "float16": Tolerance(largest=0.02, embedding=0.02, mean=0.01, agreement=0.98),
    "int8": Tolerance(largest=0.35, embedding=0.5, mean=0.1, agreement=0.9),
}


def tolerance_of(quantize: str | None, front_end: FrontEnd) -> Tolerance:
    """How much an export of a classifier with this front end may differ from its model."""
    usual, slack = TOLERANCES[quantize], front_end.slack if quantize is None else 1.0
    return replace(
        usual,
        largest=usual.largest * slack,
        embedding=usual.embedding * slack,
        mean=usual.mean * slack,
    )


def compare(
    model: keras.Model,
    run: Runner,
    sounds: Sequence[np.ndarray],
    samples: int | None,
) -> dict[str, Any]:
    """Run both models on each sound, and on two at once if the batch size is free.

    Args:
        model: from `unfreeze.export.program.with_outputs`.
        run: the export.
        sounds: (samples,) each.
        samples: the export's fixed length, or None.

    Returns:
        Plain values for JSON: `sounds`, `largest_difference`, `mean_difference`,
        `decided`, `top_class_agreement` and, with embeddings, `embedding_difference`
        (relative to the largest value).
    """
    batches = [fitted(sound, samples) for sound in sounds]
    if samples is None:
        # The same sound twice, once quieter: the rows must not affect each other.
        batches.append(np.concatenate([batches[0], 0.5 * batches[0]]))
    wanted, given = [], []
    for batch in batches:
        wanted.append([np.asarray(x) for x in _listed(model(batch, training=False))])
        found = run(batch)
        given.append([found[name] for name in (PROBABILITIES, EMBEDDINGS)[: len(wanted[-1])]])
    ours = [np.concatenate(parts) for parts in zip(*wanted, strict=True)]
    theirs = [np.concatenate(parts) for parts in zip(*given, strict=True)]
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"the export gives shape {b.shape}, the model {a.shape}")
    differences = np.abs(theirs[0] - ours[0])
    ranked = np.sort(ours[0], axis=1)
    decided = ranked[:, -1] - ranked[:, -2] >= DECIDED
    same = theirs[0].argmax(axis=1) == ours[0].argmax(axis=1)
    result: dict[str, Any] = {
        "sounds": len(ours[0]),
        "largest_difference": _largest(differences),
        "mean_difference": float(differences.max(axis=1).mean()),
        "decided": int(decided.sum()),
        "top_class_agreement": float(same[decided].mean()) if decided.any() else 1.0,
    }
    if len(ours) > 1:
        scale = max(float(np.abs(ours[1]).max()), 1e-6)
        result["embedding_difference"] = _largest(np.abs(theirs[1] - ours[1])) / scale
    return result


def front_end_difference(
    front_end: FrontEnd, sounds: Sequence[np.ndarray], samples: int | None
) -> float:
    """The largest difference in a patch between the layer in the graph and the NumPy one."""
    layer, worst = front_end_layer(front_end), 0.0
    for sound in sounds:
        batch = fitted(sound, samples)
        patches = patches_of(batch[0], front_end)
        worst = max(worst, _largest(np.abs(np.asarray(layer(batch))[0] - patches)))
    return worst


def complaints(
    check: dict[str, Any], quantize: str | None, front_end: FrontEnd | None = None
) -> list[str]:
    """What in a comparison exceeds the tolerance, in words; empty if nothing does.

    Args:
        check: from `compare`, perhaps with `front_end_difference`.
        quantize: how the export is quantized.
        front_end: says how much its patches and scores may differ; YAMNet's if not given.
    """
    front = front_end or FrontEnd()
    allowed = tolerance_of(quantize, front)
    found = []
    for key, most in (
        ("largest_difference", allowed.largest),
        ("mean_difference", allowed.mean),
        ("embedding_difference", allowed.embedding),
        ("front_end_difference", front.tolerance),
    ):
        # Written so that NaN exceeds it, too.
        if key in check and not check[key] <= most:
            found.append(f"{key.replace('_', ' ')} {check[key]:.2g} (at most {most:g})")
    if not check["top_class_agreement"] >= allowed.agreement:
        found.append(
            f"top class agreement {check['top_class_agreement']:.2f} "
            f"of {check['decided']} decided sounds (at least {allowed.agreement:g})"
        )
    return found


def speed(run: Callable[[np.ndarray], Any], samples: int, sample_rate: int) -> dict[str, float]:
    """Median time of one call on noise, one sound at a time.

    Returns:
        `milliseconds` per sound, and `times_real_time`, its length divided by that time.
    """
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, samples)).astype(np.float32)
    run(sound), run(sound)  # compiles, allocates
    times: list[float] = []
    while len(times) < 5 or (sum(times) < _MEASURING and len(times) < 100):
        began = time.perf_counter()
        run(sound)
        times.append(time.perf_counter() - began)
    median = float(np.median(times))
    return {
        "milliseconds": round(1000 * median, 3),
        "times_real_time": round(samples / sample_rate / median, 1),
    }


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _largest(differences: np.ndarray) -> float:
    return float(differences.max()) if differences.size else 0.0
