"""Which clip to ask about next.

Each order is a function from the pool and the clips that are still free to the next clip, or
None. A clip that was decided is never free again; one that is shown on another page is not
free meanwhile. The orders:

- `uncertain`: the smallest margin between the two likeliest classes, which teaches a model most
  (margin sampling: T. Scheffer et al., "Active Hidden Markov Models for Information Extraction",
  IDA 2001);
- `quota`: the surest clip of the class with the fewest confirmed clips, so that no class is
  left behind;
- `like_last`: what sounds most like the clip that was confirmed last;
- `sample`: a stratified random sample of one class, from which `unfreeze.review.call_density`
  counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unfreeze.review.clip_pool import Pool

ORDERS = UNCERTAIN, QUOTA, LIKE_LAST, SAMPLE = "uncertain", "quota", "like", "sample"
#: Bounds of the strata of a sample, as shares of the clips in ascending order of score. Calls of
#: rare classes lie at the top, so that the strata get smaller there (logarithmic binning:
#: A. K. Navine et al., "All thresholds barred: direct estimation of call density in bioacoustic
#: data", Frontiers in Bird Science, 2024).
STRATA = (0.0, 0.5, 0.75, 0.875, 1.0)


def next_uncertain(pool: Pool, free: np.ndarray, label: int | None = None) -> int | None:
    """The free clip that the model is least certain of.

    Args:
        pool: the clips.
        free: (clips,) bool.
        label: only clips that this class is the likeliest of; None for any.
    """
    wanted = free if label is None else free & (pool.likeliest() == label)
    return _least(pool.certainty(), wanted)


def next_for_quota(
    pool: Pool, free: np.ndarray, confirmed: Mapping[str, int], label: int | None = None
) -> int | None:
    """The surest free clip of the class with the fewest confirmed clips.

    Args:
        pool: the clips.
        free: (clips,) bool.
        confirmed: how many clips of each class are confirmed.
        label: only clips of this class; None for any.
    """
    likeliest = pool.likeliest()
    numbers = [number for number, loud in enumerate(pool.loud) if loud]
    chosen = numbers if label is None else [label]
    for number in sorted(chosen, key=lambda n: confirmed.get(pool.labels[n], 0)):
        found = _least(-pool.scores[:, number].astype(np.float32), free & (likeliest == number))
        if found is not None:
            return found
    return None


def next_alike(alike: np.ndarray, free: np.ndarray) -> int | None:
    """The free clip that is most like another one.

    Args:
        alike: (clips,) from `unfreeze.review.clip_pool.similarities`.
        free: (clips,) bool.
    """
    return _least(-alike, free)


@dataclass(frozen=True, eq=False)
class Sample:
    """A stratified random sample of clips, in the order in which they are asked.

    The order is drawn before anything is asked. So the first clips of each stratum are a
    simple random sample of it, however many have been decided, and a clip that was decided
    in another order before keeps its place.

    Attributes:
        strata: the clips of each stratum, in random order.
    """

    strata: tuple[np.ndarray, ...]

    def next(self, known: np.ndarray, free: np.ndarray) -> int | None:
        """The next clip of the sample: of the stratum with the fewest known ones.

        Args:
            known: (clips,) bool, whether it was said of a clip if it has the class, or that this
                cannot be said.
            free: (clips,) bool.
        """
        asked = [_begun(known[own]) for own in self.strata]
        for number in sorted(range(len(asked)), key=lambda n: asked[n]):
            own = self.strata[number]
            # In order: leaving one out that is shown elsewhere only delays it.
            left = own[free[own] & ~known[own]]
            if len(left):
                return int(left[0])
        return None

    def known_part(self, known: np.ndarray) -> list[np.ndarray]:
        """The sampled clips of each stratum: those up to the first that is not known."""
        return [own[: _begun(known[own])] for own in self.strata]


def draw_sample(scores: np.ndarray, among: np.ndarray, seed: int) -> Sample:
    """Draw a sample of one class.

    Args:
        scores: (clips,) of the class. They decide the strata, so they must stay the same for as
            long as the sample is asked.
        among: (clips,) bool, the clips that it is drawn from.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    clips = np.flatnonzero(among)
    # Equal scores are dealt out by chance, not by their time.
    shuffled = rng.permutation(clips)
    ranked = shuffled[np.argsort(scores[shuffled], kind="stable")]
    bounds = [round(share * len(ranked)) for share in STRATA]
    parts = [ranked[a:b] for a, b in pairwise(bounds) if b > a]
    return Sample(tuple(rng.permutation(part) for part in parts))


def _begun(known: np.ndarray) -> int:
    """How many come before the first that is not known."""
    return len(known) if known.all() else int(np.argmin(known))


def _least(values: np.ndarray, wanted: np.ndarray) -> int | None:
    """The position of the smallest value among the wanted ones; the first of equal ones."""
    places = np.flatnonzero(wanted)
    return int(places[np.argmin(values[places])]) if len(places) else None
