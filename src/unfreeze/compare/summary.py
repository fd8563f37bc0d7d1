"""What the runs of a comparison say: means, paired differences, a plain verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unfreeze.compare.bootstrap import LEVEL, RESAMPLES, Floats, interval, pooled, resampled
from unfreeze.compare.trial import Record

FEW_GROUPS, FEW_SEEDS = 5, 3
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
        seconds: of a run's epochs, the mean; without the caches that all share.
        epochs: of a run, the mean over runs, all stages together.
    """

    strategy: str
    scores: dict[str, Estimate]
    seconds: float
    epochs: float


@dataclass(frozen=True)
class Difference:
    """How much better the best strategy is than another, in accuracy, paired.

    Attributes:
        best: the strategy with the highest accuracy on the test part.
        other: the other one.
        part: where it is measured.
        value: difference of accuracies, best less other.
        interval: 95 %, over groups and seeds.
    """

    best: str
    other: str
    part: str
    value: float
    interval: Pair | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves no doubt about which is better."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Summary:
    """The result of a comparison.

    Attributes:
        rows: a row a strategy, the best on the test part first.
        differences: from the best to each other, for each part.
        grouped: whether the data have groups.
        runs: runs that are counted: those of splits that all strategies have done.
        planned: runs that were asked for.
        groups: test groups, or clips where there are no groups.
        seeds: how many.
        failed: strategies that diverged in some run, with the message.
        notes: what a reader must know, a sentence each.
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

    def as_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = asdict(self)
        for item, difference in zip(plain["differences"], self.differences, strict=True):
            item["told_apart"] = difference.told_apart
        bootstrap = {"level": LEVEL, "resamples": RESAMPLES, "over": ["groups", "seeds"]}
        return {"format": 1, **plain, "bootstrap": bootstrap, "verdict": list(verdict(self))}


def summarize(
    records: Sequence[Record], strategies: Sequence[str], *, grouped: bool, planned: int
) -> Summary:
    """Work out means, differences and intervals.

    Only splits that every strategy has done count, so that all are judged by the
    same clips. A strategy that diverged in a run is left out, and named.

    Args:
        records: of the runs that have ended.
        strategies: names.
        grouped: whether the data have groups.
        planned: runs that were asked for.
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
    return Summary(
        tuple(rows), tuple(differences), grouped, runs, planned, groups, seeds, failed, notes
    )


def verdict(summary: Summary) -> tuple[str, ...]:
    """What follows, in plain sentences."""
    if not summary.rows:
        return ("No split was run with every strategy: there is nothing to compare yet.",)
    best = summary.rows[0]
    if not summary.rows[1:]:
        shown = f"{100 * best.scores['test'].accuracy:.1f} %"
        return (f"{best.strategy} is right in {shown} {part_words('test', summary.grouped)}.",)
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
            f"The cheapest that cannot be told from the best: {cheapest.strategy} "
            f"({cheapest.seconds:.0f} s a run)."
        )
    return tuple(lines)


def part_words(part: str, grouped: bool) -> str:
    """A part of the clips, in words."""
    if not grouped:
        return "on held-out clips"
    return "on unseen groups" if part == "test" else "on new clips of the trained groups"


def _one(difference: Difference, grouped: bool, first: bool) -> str:
    where = part_words(difference.part, grouped)
    bounds = difference.interval or (math.nan, math.nan)
    numbers = f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"
    points = 100 * difference.value
    if not difference.told_apart:
        if first:
            return (
                f"{difference.best} and {difference.other} cannot be told apart {where} "
                f"({points:+.1f} points {numbers})"
            )
        return f"{where} no difference can be told ({points:+.1f} {numbers})"
    if first:
        return (
            f"{difference.best} is better than {difference.other} by {points:.1f} points "
            f"{numbers} {where}"
        )
    word = "better" if points > 0 else "worse"
    return f"{where} it is {word} by {abs(points):.1f} {numbers}"


def tables(runs: Sequence[Sequence[Record]], part: str) -> tuple[Floats, Floats]:
    """Count what was right.

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
            right = np.equal(scores["truth"], scores["guess"]).astype(np.float64)
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
            "devices. A group column or --group-regex would."
        )
    if grouped and groups < FEW_GROUPS:
        notes.append(
            f"The intervals come from only {groups} test group{'s' * (groups != 1)}; they are too "
            f"narrow to be trusted ({FEW_GROUPS} are needed; --folds tests every group)."
        )
    if seeds < FEW_SEEDS:
        notes.append(
            f"{seeds} seed{'s' * (seeds != 1)}: how much chance in training adds is hardly known "
            f"({FEW_SEEDS} or more tell)."
        )
    if runs < planned:
        notes.append(f"{runs} of {planned} runs count; the same command does the others.")
    notes += [f"{name} diverged: {error}" for name, error in failed.items()]
    return tuple(notes)
