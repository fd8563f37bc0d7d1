"""The time estimate before a run against the time that the run then takes."""

from benchmarks.plan import Comparison, Options, Ratio, Side, without

FROZEN, TRAIN = "two stages, statistics frozen", "two stages, BatchNorm in training mode"


def declare(options: Options) -> Comparison:
    """Runs of different length in which no stage ends early."""
    short = {"patches": 400, "head_epochs": 10, "all_epochs": 1}
    long = {"patches": 2000, "head_epochs": 40, "all_epochs": 3}
    args = short if options.quick else long
    sides = (
        Side(FROZEN, "benchmarks.sides.estimate", {**args, "policy": "frozen"}),
        Side(TRAIN, "benchmarks.sides.estimate", {**args, "policy": "train"}),
    )
    comparison = Comparison(
        name="estimate",
        title="Time told before a run, and taken",
        sides=sides,
        ratios=tuple(
            Ratio(f"estimate off by a factor: {s.name}", s.name, None, "off", None, 1.3, True)
            for s in sides
        ),
        rounds=1 if options.quick else 2,
        keys=("told", "took", "off"),
        settings=args,
    )
    return without(comparison, TRAIN) if options.quick else comparison
