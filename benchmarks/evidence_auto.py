"""How good the choice of `--schedule auto` is, on the splits of the study.

For each seed, trials inside the training and validation clips of the study's split
choose a strategy; the clips that the study tests on are not touched. The score of
the choice is then that of the study's own run of this strategy on this split, which
is trained now if the study has none. So choice, default and the best in hindsight
are judged by the same clips.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfreeze.compare import folder
from unfreeze.compare.auto import choose_schedule, read_choice
from unfreeze.compare.options import CompareOptions, read_strategy
from unfreeze.compare.prepare import prepare
from unfreeze.compare.runner import CompareListener
from unfreeze.compare.splits import trial_splits
from unfreeze.compare.trial import Record, run_trial
from unfreeze.core.estimate import in_words
from unfreeze.core.presets import DEFAULT
from unfreeze.files import write_json

FOLDER, RESULT = "auto", "choices.json"


class MoreSeeds(Exception):
    """A seed is done and kept; the next one wants a fresh process."""


@dataclass(frozen=True)
class Judged:
    """What `auto` chose on a split, and what that was worth.

    Attributes:
        seed: of the split.
        chosen: the strategy.
        reason: in words.
        accuracy: of the choice, on the split's test clips.
        default: of the default strategy, on the same clips.
    """

    seed: int
    chosen: str
    reason: str
    accuracy: float
    default: float


def judge_auto(
    options: CompareOptions,
    budget: float,
    tell: Callable[[str], None],
    a_seed_a_process: bool,
) -> list[Judged]:
    """Let `auto` choose on each split of a study that is through, and score its choices.

    Args:
        options: of the study; choices and trials are kept in `auto` in its folder.
        budget: seconds for the trials of one choice.
        tell: gets a line for each trial and choice.
        a_seed_a_process: leave the seeds that remain to another process.

    Raises:
        MoreSeeds: a seed is done, others are left.
    """
    material, data = prepare(options.train, (), CompareListener().on_progress)
    judged = []
    trials = trial_splits(data.manifest, options)
    for trial in trials:
        out = options.out / FOLDER / trial.name
        known = read_choice(out) is not None
        if not known:
            tell(f"{trial.name}: trials for {in_words(budget)}")
        choice = choose_schedule(material, trial.split, budget, out=out, tell=tell)
        records = []
        for name in (choice.schedule, DEFAULT):
            strategy = read_strategy(name)
            file = folder.record_file(options.out, strategy, trial)
            record = folder.read_record(file)
            if record is None:
                known = False
                record = run_trial(material, trial, strategy, folder.current_folder(file))
                folder.write_record(file, record)
            records.append(accuracy(record))
        judged.append(Judged(trial.seed, choice.schedule, choice.reason, *records))
        tell(f"{trial.name}: {choice.schedule}, {records[0]:.3f} (the default {records[1]:.3f})")
        if a_seed_a_process and not known and trial is not trials[-1]:
            raise MoreSeeds
    write_json(options.out / FOLDER / RESULT, [vars(one) for one in judged])
    return judged


def accuracy(record: Record) -> float:
    """Of the test clips of a run that did not diverge."""
    found: dict[str, Any] = record["scores"]["test"]
    return float(np.mean(np.equal(found["truth"], found["guess"])))
