"""Intervals of scores and of paired differences over groups and seeds."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
# Weights of so many resamples at once; bounds memory with 100,000 groups.
_AT_ONCE = 100

Floats = NDArray[np.float64]


def pooled(hits: Floats, counts: Floats) -> Floats:
    """Share of hits of each strategy.

    Args:
        hits: (strategies, seeds, groups) clips that were right.
        counts: (seeds, groups) clips that were tested.

    Returns:
        (strategies,).
    """
    shares: Floats = hits.sum(axis=(1, 2)) / counts.sum()
    return shares


def resampled(hits: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The same shares in bootstrap resamples of groups and of seeds.

    Groups and seeds are crossed, so both are drawn with replacement, each by
    itself, and a cell counts as often as its group times its seed was drawn: the
    pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1 (2)), which errs on the side of wide intervals. All strategies
    share the draws, so their differences are paired.

    Args:
        hits: (strategies, seeds, groups) clips that were right.
        counts: (seeds, groups) clips that were tested, 0 where a seed's split did
            not test a group.
        resamples: how many.
        seed: of the drawing.

    Returns:
        (strategies, resamples); NaN where a resample tested nothing.
    """
    n_seeds, n_groups = counts.shape
    rng = np.random.default_rng(seed)
    shares = np.full((len(hits), resamples), np.nan)
    for first in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - first)
        seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size).astype(np.float64)
        groups = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size)
        weights = groups.astype(np.float64)
        total = ((weights @ counts.T) * seeds).sum(axis=1)
        for place, own in enumerate(hits):
            right = ((weights @ own.T) * seeds).sum(axis=1)
            chunk = shares[place, first : first + size]
            np.divide(right, total, out=chunk, where=total > 0)
    return shares


def interval(values: Floats) -> tuple[float, float] | None:
    """The 95 % percentile interval; None where no resample has a value."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return float(low), float(high)
