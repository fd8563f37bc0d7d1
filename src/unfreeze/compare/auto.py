"""`--schedule auto`: a short, honest trial on the training clips chooses the schedule.

Round by round, on another inner split each, the strategies that are left are
trained and scored on inner groups that they did not see; the worse half goes. The
test clips of the run are in none of it. This is successive halving (Jamieson and
Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS) with splits as the resource. The default is kept unless
another is better by more than a standard error (the rule of Breiman et al. 1984,
"Classification and Regression Trees", 3.4.3): a trial on few groups is noisy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.audio.split import Split
from unfreeze.compare import folder
from unfreeze.compare.bootstrap import interval, pooled, resampled
from unfreeze.compare.budget import Deadline, Pace
from unfreeze.compare.inner import inner_split
from unfreeze.compare.options import read_strategy
from unfreeze.compare.summary import tables
from unfreeze.compare.trial import Material, Record, run_trial
from unfreeze.core.presets import DEFAULT
from unfreeze.core.schedule import Schedule
from unfreeze.errors import DataError, RunError, UnfreezeError
from unfreeze.files import write_json
from unfreeze.run_reading import read_json

# Chosen by docs/evidence.md: what did well somewhere, from the least to the most that moves.
_OTHERS = (
    "head_only",
    "surgical:last",
    "two_stage+train=head|top:50%",
    "two_stage+rate=3e-5",
    "gradual",
    "full",
)
# The default first: the others are judged against it.
CANDIDATES = (DEFAULT, *_OTHERS)
ROUNDS = 3
CHOICE, TRIALS = "auto.json", "auto"


@dataclass(frozen=True)
class Choice:
    """What a trial chose, and why.

    Attributes:
        schedule: the chosen strategy's name.
        reason: in words.
        rows: for each strategy `strategy`, `rounds`, `accuracy` on inner test clips
            over its rounds with its 95 % `interval`, `epochs` and `seconds` a run.
    """

    schedule: str
    reason: str
    rows: tuple[dict[str, Any], ...]

    def as_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"schedule": self.schedule, "reason": self.reason, "trials": list(self.rows)}

    def resolve(self, epochs: int | None) -> Schedule:
        """The chosen schedule, with at most so many epochs a stage."""
        return read_strategy(self.schedule, epochs).schedule


def read_choice(out: Path) -> Choice | None:
    """The choice that an earlier start of a run made, None if there is none.

    Raises:
        RunError: it cannot be read.
    """
    file = out / CHOICE
    if not file.is_file():
        return None
    found = read_json(file, "delete it to choose again")
    try:
        return Choice(str(found["schedule"]), str(found["reason"]), tuple(found["trials"]))
    except (KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it to choose again") from None


def choose_schedule(
    material: Material,
    outer: Split,
    budget: float,
    epochs: int | None = None,
    out: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Try strategies on inner splits of the training clips, and choose one.

    Args:
        material: data, features, backbone.
        outer: the run's split; its test clips are not looked at.
        budget: seconds; no trial is begun that would go beyond.
        epochs: the most of each stage; None leaves them.
        out: the run folder; keeps trials and choice. None keeps nothing.
        tell: gets a line for each trial and the reason.
        progress: called with runs done and planned.

    Returns:
        The choice. With too few groups for a trial it is the default, and says so.
    """
    made = None if out is None else read_choice(out)
    if made is not None:
        tell(f"the schedule was chosen before: {made.schedule}")
        return made
    try:
        records = _rounds(material, outer, budget, epochs, out, tell, progress)
        choice = decide(records)
    except DataError as error:
        choice = Choice(DEFAULT, f"no trial is possible, so the default is taken: {error}", ())
    tell(choice.reason)
    if out is not None:
        write_json(out / CHOICE, choice.as_plain())
    return choice


def _rounds(
    material: Material,
    outer: Split,
    budget: float,
    epochs: int | None,
    out: Path | None,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> list[Record]:
    clock = Deadline(budget)
    alive = list(CANDIDATES)
    records: list[Record] = []
    pace = Pace([])
    planned = len(alive)
    splits = [inner_split(material.manifest, outer, number) for number in range(ROUNDS)]
    for split in splits:
        if records and clock.over(pace.seconds(DEFAULT)):
            tell(f"no time left for another round, in which {DEFAULT} must run, too")
            break
        for name in alive:
            progress(len(records), planned)
            if records and clock.over(pace.seconds(name)):
                tell(f"{name}: no time left to try it")
                continue
            strategy = read_strategy(name, epochs)
            file = None if out is None else folder.record_file(out / TRIALS, strategy, split)
            record = None if file is None else folder.read_record(file)
            if record is None:
                state = None if file is None else folder.current_folder(file)
                record = run_trial(material, split, strategy, state)
                if file is not None:
                    folder.write_record(file, record)
            records.append(record)
            pace.add(record)
            tell(_line(record))
        alive = _better_half(records, alive)
        if len(alive) < 2:
            break
        planned = len(records) + len(alive)
    progress(len(records), len(records))
    return records


def _line(record: Record) -> str:
    where = f"{record['strategy']}, round {record['seed'] + 1}"
    if "error" in record:
        return f"{where}: diverged"
    return (
        f"{where}: {_accuracy([record]):.3f} on inner test clips ({record['wall_seconds']:.0f} s)"
    )


def _better_half(records: Sequence[Record], alive: Sequence[str]) -> list[str]:
    """The half that is better so far; the default always among it."""
    rounds = {name: _good(records, name) for name in alive}
    most = max((len(own) for own in rounds.values()), default=0)
    ranked = sorted(
        (name for name in alive if len(rounds[name]) == most and most),
        key=lambda name: -_accuracy(rounds[name]),
    )
    kept = ranked[: max(2, (len(alive) + 1) // 2)]
    return [name for name in alive if name in kept or name == DEFAULT]


def _good(records: Sequence[Record], name: str) -> list[Record]:
    own = [record for record in records if record["strategy"] == name]
    return [] if any("error" in record for record in own) else own


def _accuracy(own: Sequence[Record]) -> float:
    return float(np.mean(_right(own)))


def _right(own: Sequence[Record]) -> np.ndarray:
    """Whether each inner test clip was right, round by round."""
    scores = [record["scores"]["test"] for record in own]
    return np.concatenate([np.equal(found["truth"], found["guess"]) for found in scores])


def decide(records: Sequence[Record]) -> Choice:
    """Choose from the records of the trials.

    Each is judged against the default on the rounds that both have done.

    Args:
        records: of `run_trial` on inner splits.

    Raises:
        UnfreezeError: no strategy has ended without diverging.
    """
    names = list(dict.fromkeys(record["strategy"] for record in records))
    rounds = {name: _good(records, name) for name in names}
    rows = [
        {
            "strategy": name,
            "rounds": len(own),
            "accuracy": _accuracy(own),
            "interval": _interval(own),
            "epochs": float(np.mean([sum(r["epochs"].values()) for r in own])),
            "seconds": float(np.mean([r["seconds"] for r in own])),
        }
        for name, own in rounds.items()
        if own
    ]
    if not rows:
        raise UnfreezeError(
            "Every strategy diverged in the trials. Likely cause: NaN or wrong labels in the data"
        )
    rows.sort(key=lambda row: (-row["rounds"], -row["accuracy"]))
    start = DEFAULT if rounds.get(DEFAULT) else rows[0]["strategy"]
    rivals = [_against(rounds[start], own) for name, own in rounds.items() if own and name != start]
    if not rivals:
        reason = f"{start}: no other strategy could be tried in the time"
        return Choice(start, reason, tuple(rows))
    clear = [rival for rival in rivals if rival.gain > rival.error]
    best = max(clear or rivals, key=lambda rival: rival.gain)
    numbers = (
        f"{100 * best.accuracy:.1f} against {100 * (best.accuracy - best.gain):.1f} % on clips "
        f"that the trials did not train on, standard error of the difference {100 * best.error:.1f}"
    )
    if clear:
        return Choice(best.name, f"{best.name} is better than {start}: {numbers}", tuple(rows))
    reason = f"{start} stays, as {best.name}, the best other, is not clearly better: {numbers}"
    return Choice(start, reason, tuple(rows))


def _interval(own: Sequence[Record]) -> list[float] | None:
    hits, counts = tables([own], "test")
    # One group tells nothing of others.
    found = interval(resampled(hits, counts)[0]) if counts.shape[1] > 1 else None
    return None if found is None else list(found)


@dataclass(frozen=True)
class _Rival:
    name: str
    accuracy: float
    gain: float
    error: float


def _against(base: Sequence[Record], own: Sequence[Record]) -> _Rival:
    """A strategy against another, on the rounds that both have done."""
    seeds = {record["seed"] for record in base} & {record["seed"] for record in own}
    pair = [[r for r in records if r["seed"] in seeds] for records in (base, own)]
    hits, counts = tables(pair, "test")
    means, drawn = pooled(hits, counts), resampled(hits, counts)
    # Of one group the bootstrap over groups sees no spread; that of clips is a floor.
    gains = np.subtract(*(_right(records).astype(np.float64) for records in reversed(pair)))
    floor = float(gains.std() / np.sqrt(len(gains)))
    error = max(float(np.nanstd(drawn[1] - drawn[0])), floor)
    return _Rival(own[0]["strategy"], float(means[1]), float(means[1] - means[0]), error)
