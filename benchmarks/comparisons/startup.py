"""How long `unfreeze --help` takes."""

from benchmarks.plan import Comparison, Options, Ratio, Side

HELP = "unfreeze --help"


def declare(options: Options) -> Comparison:
    """Wall time of the command."""
    return Comparison(
        name="startup",
        title="Start of the command line",
        sides=(Side(HELP, "benchmarks.sides.help", {"times": 10}),),
        ratios=(Ratio("unfreeze --help, seconds", HELP, None, "seconds", None, 0.3, True),),
        rounds=1 if options.quick else 3,
        keys=("seconds",),
        settings={"calls a round": 10},
    )
