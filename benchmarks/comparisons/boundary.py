"""Training the last two blocks on a cached prefix, against the whole network."""

from benchmarks.plan import Comparison, Options, Ratio, Side

FULL, TOP = "whole network", "blocks 13 and 14, cached prefix"
BATCH = 128


def declare(options: Options) -> Comparison:
    """Both sides are ours."""
    patches = BATCH * (2 if options.quick else 8)
    top = {
        "patches": 4 * patches,
        "batch": BATCH,
        "train": ["transfer_*", "block13_*", "block14_*"],
    }
    whole = {"patches": patches, "batch": BATCH, "train": "all"}
    return Comparison(
        name="boundary",
        title="Training the last two blocks on a cached prefix",
        sides=(
            Side(FULL, "benchmarks.sides.train_ours", whole),
            Side(TOP, "benchmarks.sides.train_ours", top),
        ),
        ratios=(Ratio("last two blocks on a cached prefix / full stage", TOP, FULL, target=8),),
        rounds=3 if options.quick else 7,
        keys=("rate",),
        settings={"batch": BATCH, "patches": patches, "patches of the last blocks": 4 * patches},
        notes=("The cached outputs are read from a file by row numbers, as `fit` does.",),
    )
