"""The results of a comparison: means, paired differences, and a verdict in plain sentences.

Strategies are ranked by the share of test clips that are right or, where their models searched
annotated recordings, by the mean average precision of the events found there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unfreeze.compare.detector_scores import ALARMS, AP, F1, Drawn, detection_scores
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
from unfreeze.report.comparison_report import RECORDINGS, part_words, score_words

FEW_SEEDS = 3
Pair = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval over groups and seeds.

    Attributes:
        accuracy: the score, mostly an accuracy, 0 to 1.
        interval: None where nothing is known of it.
    """

    accuracy: float
    interval: Pair | None


@dataclass(frozen=True)
class Row:
    """A strategy's results over the runs that all strategies have done.

    Attributes:
        strategy: its name.
        scores: by part: `test` (unseen groups or, without groups, held-out clips),
            `seen` (held-out clips of trained groups), `recordings` (mean average precision in
            annotated recordings). What strategies are ranked by comes first.
        seconds: mean over runs of the time of all epochs, without the shared caches.
        epochs: mean over runs, all stages together.
        detection: in annotated recordings, `f1` of all events at each model's own thresholds,
            and `false_alarms_per_hour`; None without recordings.
    """

    strategy: str
    scores: dict[str, Estimate]
    seconds: float
    epochs: float
    detection: dict[str, Estimate] | None = None


@dataclass(frozen=True)
class Difference:
    """How much better the best strategy is than another: the paired difference of a score.

    Attributes:
        best: the strategy that is ranked first.
        other: the other one.
        part: the part of the clips that it is measured on.
        value: difference of scores, best minus other.
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
        rows: one row per strategy, the best first.
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
        ranked_by: the part of `Row.scores` that strategies are ranked by.
        recordings: number of annotated recordings that were searched.
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
    ranked_by: str = "test"
    recordings: int = 0

    def as_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for item, difference in zip(plain["differences"], self.differences, strict=True):
            item["told_apart"] = difference.told_apart
        for row in plain["rows"]:
            if row["detection"] is None:
                del row["detection"]
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
    searched = bool(whole) and all("detection" in by_key[n, *t] for n in ranked for t in whole)
    detected = None
    if searched:
        detected = detection_scores([[by_key[name, *t] for t in whole] for name in ranked])
        means = {RECORDINGS: detected.means[AP], **means}
        drawn = {RECORDINGS: detected.draws[AP], **drawn}
    first = RECORDINGS if searched else "test"
    rows = []
    for place, name in enumerate(ranked if whole else ()):
        own = [by_key[name, *trial] for trial in whole]
        scores = {
            part: Estimate(float(means[part][place]), interval(drawn[part][place]))
            for part in means
        }
        seconds = float(np.mean([r["seconds"] for r in own]))
        epochs = float(np.mean([sum(r["epochs"].values()) for r in own]))
        further = None if detected is None else _detection(detected, place)
        rows.append(Row(name, scores, seconds, epochs, further))
    rows.sort(key=lambda row: -row.scores[first].accuracy)
    groups = int((counted["test"][1].sum(axis=0) > 0).sum()) if counted else 0
    seeds = len({seed for seed, _ in whole})
    differences = [
        _difference(rows[0].strategy, row.strategy, part, ranked, means[part], drawn[part])
        for row in rows[1:]
        for part in means
    ]
    runs = len(whole) * len(ranked)
    recordings = detected.recordings if detected else 0
    notes = _notes(grouped, groups, seeds, runs, planned, failed)
    if recordings and recordings < FEW_GROUPS:
        notes = (*notes, _few_recordings(recordings))
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
        first,
        recordings,
    )


def _detection(found: Drawn, place: int) -> dict[str, Estimate]:
    return {
        score: Estimate(float(found.means[score][place]), interval(found.draws[score][place]))
        for score in (F1, ALARMS)
    }


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
        ranked = summary.ranked_by
        shown = f"{100 * best.scores[ranked].accuracy:.1f} %"
        where = part_words(ranked, summary.grouped)
        return (f"{best.strategy} has {shown} {score_words(ranked, summary.score)} {where}.",)
    lines = []
    for row in summary.rows[1:]:
        mine = {d.part: d for d in summary.differences if d.other == row.strategy}
        # What they are ranked by comes first.
        parts = [
            _one(mine[part], summary.grouped, first=part == summary.ranked_by)
            for part in row.scores
        ]
        lines.append("; ".join(parts) + ".")
    tests = [d for d in summary.differences if d.part == summary.ranked_by]
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
    bounds = difference.interval
    numbers = "" if bounds is None else f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"
    points = 100 * difference.value
    unit = "points of mean average precision" if difference.part == RECORDINGS else "points"
    if not difference.told_apart:
        if first:
            return (
                f"{difference.best} is not clearly better than {difference.other} {where} "
                f"({points:+.1f} {unit}{numbers})"
            )
        return f"{where} there is no clear difference ({points:+.1f}{numbers})"
    if first:
        return (
            f"{difference.best} is better than {difference.other} by {points:.1f} {unit}"
            f"{numbers} {where}"
        )
    word = "better" if points > 0 else "worse"
    return f"{where} it is {word} by {abs(points):.1f}{numbers}"


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


def _few_recordings(recordings: int) -> str:
    if recordings == 1:
        return (
            "There is a single annotated recording: nobody knows how strategies compare in "
            f"others ({FEW_GROUPS} or more are needed)."
        )
    return (
        f"The intervals of mean average precision come from only {recordings} recordings; they "
        f"are too narrow to be trusted ({FEW_GROUPS} are needed)."
    )


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
