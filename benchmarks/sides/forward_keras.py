"""YAMNet's forward pass by plain `model.predict`. Args: folder, times."""

from benchmarks.sides.forward import measured
from unfreeze.backbones.registry import get_backbone


def prepare(args):
    """A batch of 128 at a time."""
    model = get_backbone("yamnet").build()
    return measured(
        args["folder"], lambda x: model.predict(x, batch_size=len(x), verbose=0), args["times"]
    )
