"""`unfreeze train` on a folder, by Python: files to tested model. Args: data, epochs, schedule."""

import os
import tempfile
from pathlib import Path


def prepare(args):
    """The whole program is what is measured."""

    def run():
        from unfreeze.backbones.pretrained_weights import resolve_weights
        from unfreeze.backbones.yamnet_spec import YAMNET_WEIGHTS
        from unfreeze.pipeline.train_options import TrainOptions
        from unfreeze.planning import train_classifier

        weights = resolve_weights(YAMNET_WEIGHTS)
        with tempfile.TemporaryDirectory(dir=Path(args["data"]).parent) as cache:
            # An empty cache, so that features and embeddings are computed.
            os.environ["UNFREEZE_CACHE"] = cache
            train_classifier(
                TrainOptions(
                    Path(args["data"]),
                    schedule=args["schedule"],
                    epochs=args["epochs"],
                    weights=weights,
                )
            )

    return run
