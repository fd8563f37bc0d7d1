"""Bootstrap intervals over groups: whole groups are drawn, never single clips.

Clips recorded together (a speaker, a site, a recording) are drawn together, so
that an interval is about new groups, not about new clips of the same groups.
`group_draws` serves one test set, `resampled` several seeds and strategies at once.
Invariant: the same seed gives the same draws, so that results that share a seed
are paired.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Share of the resamples that an interval covers."""
FEW_GROUPS = 5
"""With fewer groups the intervals are too narrow to be trusted."""
RESAMPLES = 2000
"""Default number of resamples of `resampled`."""
# The 97.5 % quantile of the normal distribution.
_NORMAL = 1.959964
# Resamples computed at once; bounds memory with 100,000 groups.
_AT_ONCE = 100

Floats = NDArray[np.float64]


def interval(values: Floats) -> tuple[float, float] | None:
    """The 95 % percentile interval; None if no resample has a value.

    Args:
        values: (resamples,), NaN where a resample has none.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return float(low), float(high)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22 (158)).

    It is for shares of 0 or 1, in which a bootstrap sees no spread.

    Args:
        share: in [0, 1].
        n: how many independent cases it is a share of, at least 1.
    """
    middle = (share + _NORMAL**2 / (2 * n)) / (1 + _NORMAL**2 / n)
    half = _NORMAL * math.sqrt(share * (1 - share) / n + _NORMAL**2 / (4 * n**2))
    half /= 1 + _NORMAL**2 / n
    # Exact at the ends, where rounding would leave the share itself outside.
    low = 0.0 if share == 0 else middle - half
    return low, 1.0 if share == 1 else middle + half


def bounds(values: Floats, n: int | None = None) -> list[float] | None:
    """The interval of resampled values, for JSON; None if no resample has a value.

    Args:
        values: (resamples,), NaN where a resample has none.
        n: for a share of that many groups. Where it is 0 in all resamples, or 1, the
            interval is Wilson's: after 0 of 3 clips "0.00 to 0.00" would be a plausible lie.
    """
    found = interval(values)
    if found is not None and n and found[0] == found[1] and found[0] in (0.0, 1.0):
        found = wilson(found[0], n)
    return None if found is None else list(found)


def ratio(part: Floats, whole: Floats) -> Floats:
    """The quotient; NaN where there is nothing to divide by."""
    empty: Floats = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=empty, where=whole > 0)
    return empty


def mean_of_defined(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1).astype(np.float64))


def plain_number(value: Any) -> float | None:
    """A number for JSON; None for NaN."""
    return None if np.isnan(value) else float(value)


def few_groups_note(groups: int) -> str | None:
    """A warning where there are too few groups for an interval."""
    if groups >= FEW_GROUPS:
        return None
    noun = "group" if groups == 1 else "groups"
    return (
        f"The intervals come from only {groups} {noun}; they are too narrow to be trusted "
        f"(at least {FEW_GROUPS} groups are needed, 20 or more are better)."
    )


def group_draws(groups: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw groups with replacement, as many as there are.

    Yields one resample at a time, so that memory does not grow with their number.

    Args:
        groups: number of groups.
        resamples: number of draws.
        seed: of the draws.

    Yields:
        (groups,) how often each group was drawn.
    """
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = rng.integers(groups, size=groups)
        yield np.bincount(drawn, minlength=groups).astype(np.float64)


def pooled(hits: Floats, counts: Floats) -> Floats:
    """Share of hits of each strategy.

    Args:
        hits: (strategies, seeds, groups) number of clips predicted correctly.
        counts: (seeds, groups) number of clips tested.

    Returns:
        (strategies,).
    """
    shares: Floats = hits.sum(axis=(1, 2)) / counts.sum()
    return shares


def resampled(hits: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The same shares in bootstrap resamples of groups and of seeds.

    Groups and seeds are crossed, so both are drawn with replacement, independently,
    and the weight of a cell is the draws of its group times those of its seed: the
    pigeonhole bootstrap (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1 (2)), whose intervals tend to be too wide rather than too narrow.
    All strategies share the draws, so their differences are paired.

    Args:
        hits: (strategies, seeds, groups) number of clips predicted correctly.
        counts: (seeds, groups) number of clips tested; 0 if a seed's split did not
            test a group.
        resamples: number of resamples.
        seed: of the draws.

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
