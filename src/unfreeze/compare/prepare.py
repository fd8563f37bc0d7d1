"""What all runs of a comparison or a search share, made ready once."""

from collections.abc import Callable, Sequence

from unfreeze.backbones.registry import get_backbone
from unfreeze.backbones.weights import resolve_weights
from unfreeze.compare.options import Strategy
from unfreeze.compare.trial import Material, new_model
from unfreeze.core.graph import flatten
from unfreeze.core.select import check
from unfreeze.features import build_features
from unfreeze.options import TrainOptions
from unfreeze.training_data import TrainingData, read_training_data

Progress = Callable[[str, int, int], None]


def prepare(
    train: TrainOptions, strategies: Sequence[Strategy], progress: Progress
) -> tuple[Material, TrainingData]:
    """Read the data and make the features; each strategy is checked before that.

    Args:
        train: the data and how to read them.
        strategies: those known beforehand.
        progress: called with "reading", "weights" or "features", what is done of it,
            and all.

    Raises:
        UnfreezeError: the data, the weights or a strategy cannot be used.
    """
    backbone = get_backbone(train.backbone)
    data = read_training_data(train, lambda done, total: progress("reading", done, total))
    weights = resolve_weights(
        backbone.name,
        path=train.weights,
        progress=lambda done, total: progress("weights", done, total),
    )
    graph = flatten(new_model(backbone, weights, len(data.manifest.labels), 0))
    for strategy in strategies:
        check(graph, strategy.schedule)
    store = build_features(
        data.manifest,
        backbone.front_end,
        lambda done, total: progress("features", done, total),
    )
    return Material(data.manifest, store, backbone, weights), data
