"""Memory of training from a folder of recordings: many clips against few."""

from benchmarks.plan import Comparison, Options, Ratio, Side

FEW, MANY, QUICK_MANY = 1_000, 100_000, 3_000
_EPOCHS = 2


def declare(options: Options) -> Comparison:
    """The whole road: files, features, embeddings, head, test."""
    many = QUICK_MANY if options.quick else MANY
    counts = {f"{FEW:,} clips": FEW, f"{many:,} clips": many}
    few, lots = counts
    before, sides = [], []
    for name, count in counts.items():
        folder = str(options.work / f"clips{count}")
        make = {"out": folder, "clips": count}
        before.append(Side(f"writing {name}", "benchmarks.sides.make_clips", make))
        args = {"data": folder, "epochs": _EPOCHS, "schedule": "head_only"}
        sides.append(Side(name, "benchmarks.sides.train_folder", args, fresh=True))
    notes = ["Synthetic recordings of 1 second, from WAV files to the tested model."]
    if many < MANY:
        notes.append(f"{many:,} clips instead of {MANY:,}.")
    return Comparison(
        name="memory",
        title="Peak memory of training",
        sides=tuple(sides),
        ratios=(
            Ratio(
                f"peak memory of training on {many:,} clips / on {FEW:,}",
                lots,
                few,
                "peak_mb",
                target=1.2,
                at_most=True,
            ),
        ),
        rounds=1 if options.quick else 2,
        keys=("peak_mb", "seconds"),
        settings={"schedule": "head_only", "epochs": _EPOCHS},
        before=tuple(before),
        notes=tuple(notes),
    )
