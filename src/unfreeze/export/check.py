"""The comparison of an export with its model, sound by sound, and the tolerances of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from unfreeze.audio.frames import log_mel_frames, patch_starts
from unfreeze.audio.logmel import LogMel
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.export.clips import fitted
from unfreeze.export.program import EMBEDDINGS, PROBABILITIES
from unfreeze.export.runner import Runner

# The most by which the front end in the graph may differ from the one that the
# training patches were made with, in log-mel.
FRONT_END_TOLERANCE = 1e-4
# A model decides where its first class leads the second by this; only there
# can two models disagree in earnest.
DECIDED = 0.1
# Seconds spent on measuring the speed of one model.
_MEASURING = 1.0


@dataclass(frozen=True)
class Tolerance:
    """What an export may differ by.

    Attributes:
        largest: in a probability.
        embedding: in a number of an embedding, as a part of the largest number.
        mean: over the sounds, of the largest in each.
        agreement: share of the decided sounds with the same top class.
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


def compare(
    model: keras.Model,
    run: Runner,
    sounds: Sequence[np.ndarray],
    samples: int | None,
) -> dict[str, Any]:
    """Run both models on each sound, and on two at once where the batch is free.

    Args:
        model: from `unfreeze.export.program.with_outputs`.
        run: the export.
        sounds: (samples,) each.
        samples: the export's fixed length, or None.

    Returns:
        Plain values for JSON: `sounds`, `largest_difference`, `mean_difference`,
        `decided`, `top_class_agreement` and, where there are embeddings,
        `embedding_difference` (of the largest value).
    """
    batches = [fitted(sound, samples) for sound in sounds]
    if samples is None:
        # The same sound twice, once quieter: rows must not mix.
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
    """The largest difference in log-mel between the layer in the graph and the fast path."""
    layer, worst = LogMel(front_end), 0.0
    rows = np.arange(front_end.patch_frames)
    for sound in sounds:
        batch = fitted(sound, samples)
        frames = log_mel_frames(batch[0], front_end)
        patches = frames[patch_starts(len(frames), front_end)[:, np.newaxis] + rows]
        worst = max(worst, _largest(np.abs(np.asarray(layer(batch))[0] - patches)))
    return worst


def complaints(check: dict[str, Any], quantize: str | None) -> list[str]:
    """What in a comparison is beyond the tolerance, in words; empty when all is well."""
    allowed = TOLERANCES[quantize]
    found = []
    for key, most in (
        ("largest_difference", allowed.largest),
        ("mean_difference", allowed.mean),
        ("embedding_difference", allowed.embedding),
        ("front_end_difference", FRONT_END_TOLERANCE),
    ):
        # Written so that NaN is a complaint, too.
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
        `milliseconds` a sound and `times_real_time`, its length over that time.
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
