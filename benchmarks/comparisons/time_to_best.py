"""Wall time until our default is as good as the classic recipe ever gets."""

from typing import Any

from benchmarks.plan import Comparison, Options, Ratio, Row, Side

SETS = ("animal-sounds", "spoken-digits")
EPOCHS, QUICK_EPOCHS = 100, 2
QUICK_PATCHES = 128
_TARGET = 20


def declare(options: Options) -> Comparison:
    """Both start from the same saved patches; the whole process counts."""
    epochs = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    before, sides, ratios = [], [], []
    for name in SETS[:1] if options.quick else SETS:
        plain, ours = names(name)
        patches = {"patches": str(options.work / name), "epochs": epochs}
        if options.data is not None:
            save = {
                "data": str(options.data / name),
                "out": str(options.work / name),
                "limit": QUICK_PATCHES if options.quick else 0,
            }
            before.append(Side(f"patches of {name}", "benchmarks.sides.save_patches", save))
            sides.append(Side(plain, "benchmarks.sides.best_keras", patches, fresh=True))
            sides.append(Side(ours, "benchmarks.sides.best_ours", patches, fresh=True))
        ratios.append(
            Ratio(
                f"time to the classic recipe's best loss, {name}: plain Keras / ours",
                plain,
                ours,
                "to_best",
                target=_TARGET,
                missing="ours never came to that loss",
            )
        )
    notes = [
        "to_best: of plain Keras, seconds to its own best validation loss; of ours, seconds to a "
        "loss at or below that. Imports count, computing the log-mel patches does not.",
        f"At most {epochs} epochs a stage.",
    ]
    if options.quick:
        limits = f"Only {SETS[0]}, at most {QUICK_PATCHES} patches a part"
        notes.append(f"{limits}: the target is not for this form.")
    return Comparison(
        name="time_to_best",
        title="Wall time to the classic recipe's best validation loss",
        sides=tuple(sides),
        ratios=tuple(ratios),
        rounds=1,
        keys=("to_best", "best_loss", "epochs", "seconds"),
        settings={"epochs": epochs},
        before=tuple(before),
        derive=derive,
        notes=tuple(notes),
        skipped="" if options.data else "needs --data DIR",
    )


def names(data: str) -> tuple[str, str]:
    """The two sides of a data set."""
    return f"plain Keras, {data}", f"ours, {data}"


def derive(row: Row) -> None:
    """Add `to_best`, `best_loss` and `epochs` to both sides of each data set."""
    for data in SETS:
        plain, ours = (row.get(name) for name in names(data))
        for side in (plain, ours):
            if side is not None:
                side["best_loss"] = min(loss for _, loss in side["log"])
                side["epochs"] = len(side["log"])
        if plain is None:
            continue
        goal = plain["best_loss"]
        for side in (plain, ours):
            reached = _first(side["log"], goal) if side is not None else None
            if reached is not None:
                side["to_best"] = reached


def _first(log: list[Any], goal: float) -> float | None:
    """Seconds of the first epoch whose loss is at most the goal."""
    return next((seconds for seconds, loss in log if loss <= goal), None)
