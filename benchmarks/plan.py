"""What a comparison is, as plain data: its sides, its ratios, and their targets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Row = dict[str, dict[str, Any]]
"""One round: what each side gave, by the side's name."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        work: a folder for this run's files, removed at its end.
        cache: a folder for files that later runs use again.
        quick: the short form.
        data: a folder with `animal-sounds` and `spoken-digits`, or None.
        rounds: overrides every comparison's own.
        epochs: overrides the cap on epochs of `head_stage` and `time_to_best`.
        patches: overrides the training patches of `head_stage`.
    """

    work: Path
    cache: Path
    quick: bool = False
    data: Path | None = None
    rounds: int | None = None
    epochs: int | None = None
    patches: int | None = None


@dataclass(frozen=True)
class Side:
    """One way to do the job, in a process of its own.

    Attributes:
        name: as it stands in the tables.
        module: has `prepare(args)`, which returns what is called in each round.
        args: for `prepare`; must fit into JSON.
        environment: "main" is this interpreter; others are virtual environments.
        cores: pins the process to so many cores, and its libraries' threads too.
        fresh: a new process in each round, whose whole life is timed.
    """

    name: str
    module: str
    args: dict[str, Any] = field(default_factory=dict)
    environment: str = "main"
    cores: int | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Ratio:
    """A number to reach: one side's value over another's, round by round.

    Attributes:
        text: what it means.
        top: name of a side.
        bottom: name of a side; None takes the top's value alone.
        key: which value; `bottom_key` where the bottom's has another name.
        target: to reach; None only informs.
        at_most: the target is an upper limit.
        missing: what it means when a round lacks a value.
    """

    text: str
    top: str
    bottom: str | None
    key: str = "rate"
    bottom_key: str | None = None
    target: float | None = None
    at_most: bool = False
    missing: str = "not measured"


@dataclass(frozen=True)
class Comparison:
    """Sides that do the same job, and what is asked of their numbers.

    Attributes:
        name: on the command line and in the results.
        title: what is compared.
        sides: take turns in each round.
        ratios: see `Ratio`.
        rounds: how often.
        unit: of "rate", what is done in a second.
        keys: values that the table shows; of these, whatever a side has.
        settings: sizes and counts, for the reader.
        before: run once, one after the other, before the sides start.
        derive: adds values to a round that only both sides together give.
        notes: what the reader must know.
        skipped: why this cannot run now.
    """

    name: str
    title: str
    sides: tuple[Side, ...]
    ratios: tuple[Ratio, ...]
    rounds: int = 5
    unit: str = "patches/s"
    keys: tuple[str, ...] = ("rate",)
    settings: dict[str, Any] = field(default_factory=dict)
    before: tuple[Side, ...] = ()
    derive: Callable[[Row], None] | None = None
    notes: tuple[str, ...] = ()
    skipped: str = ""


def without(comparison: Comparison, *names: str) -> Comparison:
    """A comparison without some of its sides, and without the ratios that need them."""
    return replace(
        comparison,
        sides=tuple(side for side in comparison.sides if side.name not in names),
        ratios=tuple(r for r in comparison.ratios if r.top not in names and r.bottom not in names),
    )
