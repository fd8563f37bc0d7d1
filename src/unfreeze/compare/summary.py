"""The results of a comparison: means, paired differences, and a verdict in plain sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unfreeze.compare.trial import Record
from unfreeze.pipeline.bootstrap import (
    FEW_GROUPS,
    LEVEL,
    RESAMPLES,
    Floats,
    interval,
    pooled,
    resampled,
)
from unfreeze.report.comparison_report import part_words

FEW_SEEDS = 3
Pair = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """An accuracy, 0 to 1, with its 95 % interval over groups and seeds."""

    accuracy: float
    interval: Pair | None


@dataclass(frozen=True)
class Row:
    """A strategy's results over the runs that all strategies have done.

    Attributes:
        strategy: its name.
        scores: by part: `test` (unseen groups or, without groups, held-out clips),
            `seen` (held-out clips of trained groups).
        seconds: mean over runs of the time of all epochs, without the shared caches.
        epochs: mean over runs, all stages together.
    """

    strategy: str
    scores: dict[str, Estimate]
    seconds: float
    epochs: float


@dataclass(frozen=True)
class Difference:
    """How much better the best strategy is than another: the paired difference in accuracy.

    Attributes:
        best: the strategy with the highest accuracy on the test part.
        other: the other one.
        part: the part of the clips that it is measured on.
        value: difference of accuracies, best minus other.
        interval: 95 %, over groups and seeds.
    """

    best: str
    other: str
    part: str
    value: float
    interval: Pair | None

    @property
    def told_apart(self) -> bool:
        """Whether the difference is clear: its interval does not contain 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Summary:
    """The result of a comparison.

    Attributes:
        rows: one row per strategy, the best on the test part first.
        differences: between the best and each other strategy, for each part.
        grouped: whether the data have groups.
        runs: number of runs counted: those of splits that all strategies have done.
        planned: number of runs requested.
        groups: number of test groups, or of clips if there are no groups.
        seeds: number of seeds.
        failed: strategies that diverged in some run, with the message.
        notes: what a reader must know, one sentence each.
        score: what `accuracy` is: the share of clips that are right or, where a clip may
            have several labels, the F1 of the labels of a clip, in the mean over clips.
    """

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    grouped: bool
    runs: int
    planned: int
    groups: int
    seeds: int
    failed: dict[str, str]
    notes: tuple[str, ...]
    score: str = "accuracy"

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for item, difference in zip(plain["differences"], self.differences, strict=True):
            item["told_apart"] = difference.told_apart
        bootstrap = {"level": LEVEL, "resamples": RESAMPLES, "over": ["groups", "seeds"]}
        return {"format": 1, **plain, "bootstrap": bootstrap, "verdict": list(verdict(self))}


def summarize(
    records: Sequence[Record], strategies: Sequence[str], *, grouped: bool, planned: int
) -> Summary:
    """Compute means, differences and intervals.

    Only splits that every strategy has done count, so that all are scored on the
    same clips. A strategy that diverged in a run is left out and listed as failed.

    Args:
        records: of the finished runs.
        strategies: names.
        grouped: whether the data have groups.
        planned: number of runs requested.
    """
    mine = [r for r in records if r["strategy"] in strategies]
    failed = {r["strategy"]: r["error"] for r in mine if "error" in r}
    ranked = [name for name in strategies if name not in failed]
    by_key = {(r["strategy"], r["seed"], r["fold"]): r for r in mine}
    trials = sorted({(r["seed"], r["fold"]) for r in mine}, key=str)
    whole = [t for t in trials if ranked and all((name, *t) in by_key for name in ranked)]
    counted = {
        part: tables([[by_key[name, *trial] for trial in whole] for name in ranked], part)
        for part in ("test", "seen")
        if whole and part in by_key[ranked[0], *whole[0]]["scores"]
    }
    drawn = {part: resampled(hits, counts) for part, (hits, counts) in counted.items()}
    means = {part: pooled(hits, counts) for part, (hits, counts) in counted.items()}
    rows = []
    for place, name in enumerate(ranked if whole else ()):
        own = [by_key[name, *trial] for trial in whole]
        scores = {
            part: Estimate(float(means[part][place]), interval(drawn[part][place]))
            for part in counted
        }
        seconds = float(np.mean([r["seconds"] for r in own]))
        epochs = float(np.mean([sum(r["epochs"].values()) for r in own]))
        rows.append(Row(name, scores, seconds, epochs))
    rows.sort(key=lambda row: -row.scores["test"].accuracy)
    groups = int((counted["test"][1].sum(axis=0) > 0).sum()) if counted else 0
    seeds = len({seed for seed, _ in whole})
    differences = [
        _difference(rows[0].strategy, row.strategy, part, ranked, means[part], drawn[part])
        for row in rows[1:]
        for part in counted
    ]
    runs = len(whole) * len(ranked)
    notes = _notes(grouped, groups, seeds, runs, planned, failed)
    score = by_key[ranked[0], *whole[0]]["scores"]["test"].get("score") if whole else None
    return Summary(
        tuple(rows),
        tuple(differences),
        grouped,
        runs,
        planned,
        groups,
        seeds,
        failed,
        notes,
        score or "accuracy",
    )


def rightness(scores: Mapping[str, Any]) -> Floats:
    """How right each clip of a record's part is, 0 to 1."""
    right = scores["right"] if "right" in scores else np.equal(scores["truth"], scores["guess"])
    return np.asarray(right, np.float64)


def verdict(summary: Summary) -> tuple[str, ...]:
    """The verdict in plain sentences."""
    if not summary.rows:
        return ("No split was run with every strategy: there is nothing to compare yet.",)
    best = summary.rows[0]
    if not summary.rows[1:]:
        shown = f"{100 * best.scores['test'].accuracy:.1f} %"
        where = part_words("test", summary.grouped)
        return (f"{best.strategy} has {shown} {summary.score} {where}.",)
    lines = []
    for row in summary.rows[1:]:
        mine = {d.part: d for d in summary.differences if d.other == row.strategy}
        parts = [_one(mine["test"], summary.grouped, first=True)]
        if "seen" in mine:
            parts.append(_one(mine["seen"], summary.grouped, first=False))
        lines.append("; ".join(parts) + ".")
    tests = [d for d in summary.differences if d.part == "test"]
    equal = {best.strategy, *(d.other for d in tests if not d.told_apart)}
    cheapest = min((r for r in summary.rows if r.strategy in equal), key=lambda r: r.seconds)
    if len(equal) > 1:
        lines.append(
            f"The cheapest that is not clearly worse than the best: {cheapest.strategy} "
            f"({cheapest.seconds:.0f} s per run)."
        )
    return tuple(lines)


def _one(difference: Difference, grouped: bool, first: bool) -> str:
    where = part_words(difference.part, grouped)
    bounds = difference.interval or (math.nan, math.nan)
    numbers = f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"
    points = 100 * difference.value
    if not difference.told_apart:
        if first:
            return (
                f"{difference.best} is not clearly better than {difference.other} {where} "
                f"({points:+.1f} points {numbers})"
            )
        return f"{where} there is no clear difference ({points:+.1f} {numbers})"
    if first:
        return (
            f"{difference.best} is better than {difference.other} by {points:.1f} points "
            f"{numbers} {where}"
        )
    word = "better" if points > 0 else "worse"
    return f"{where} it is {word} by {abs(points):.1f} {numbers}"


def tables(runs: Sequence[Sequence[Record]], part: str) -> tuple[Floats, Floats]:
    """Count correct predictions.

    Args:
        runs: for each strategy its records, all of the same splits.
        part: of the clips.

    Returns:
        Hits (strategies, seeds, groups), and clips (seeds, groups).
    """
    first = runs[0]
    seeds = sorted({record["seed"] for record in first})
    names = sorted({name for record in first for name in record["scores"][part]["groups"]})
    column = {name: place for place, name in enumerate(names)}
    hits = np.zeros((len(runs), len(seeds), len(names)))
    counts = np.zeros((len(seeds), len(names)))
    for place, own in enumerate(runs):
        for record in own:
            scores: Mapping[str, Any] = record["scores"][part]
            columns = np.array([column[name] for name in scores["groups"]])[scores["group"]]
            right = rightness(scores)
            row = seeds.index(record["seed"])
            np.add.at(hits[place, row], columns, right)
            if place == 0:
                np.add.at(counts[row], columns, 1.0)
    return hits, counts


def _difference(
    best: str, other: str, part: str, names: Sequence[str], means: Floats, drawn: Floats
) -> Difference:
    a, b = names.index(best), names.index(other)
    value = float(means[a] - means[b])
    return Difference(best, other, part, value, interval(drawn[a] - drawn[b]))


def _notes(
    grouped: bool, groups: int, seeds: int, runs: int, planned: int, failed: Mapping[str, str]
) -> tuple[str, ...]:
    notes = []
    if not grouped:
        notes.append(
            "The data have no groups: these scores say nothing about new speakers, sites or "
            "devices. To measure that, add a group column or use --group-regex."
        )
    if grouped and groups < FEW_GROUPS:
        notes.append(
            f"The intervals come from only {groups} test group{'s' * (groups != 1)}; they are too "
            f"narrow to be trusted ({FEW_GROUPS} are needed; --folds tests every group)."
        )
    if seeds < FEW_SEEDS:
        notes.append(
            f"{seeds} seed{'s' * (seeds != 1)}: too few to measure how much chance changes the "
            f"scores ({FEW_SEEDS} or more are needed)."
        )
    if runs < planned:
        notes.append(f"{runs} of {planned} runs count; repeat the command to do the others.")
    notes += [f"{name} diverged: {error}" for name, error in failed.items()]
    return tuple(notes)
