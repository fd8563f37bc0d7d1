"""One module a comparison, each with `declare(options)`, which imports nothing heavy."""

from benchmarks.comparisons import (
    boundary,
    estimate,
    features,
    forward,
    full_stage,
    head_stage,
    memory,
    startup,
    time_to_best,
)

ALL = {
    "head_stage": head_stage.declare,
    "full_stage": full_stage.declare,
    "boundary": boundary.declare,
    "time_to_best": time_to_best.declare,
    "features": features.declare,
    "features_short": features.declare_short,
    "forward": forward.declare,
    "memory": memory.declare,
    "startup": startup.declare,
    "estimate": estimate.declare,
}
"""In the order of the table of targets."""
