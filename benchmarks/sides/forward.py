"""What all sides of the forward comparison share: the batch, the check, the count."""

from pathlib import Path

import numpy as np


def measured(folder, embed, times):
    """A round of `times` batches through `embed`, after a check of its result.

    Args:
        folder: with the files of `export_onnx`.
        embed: (128, 96, 64) patches to (128, 1024) embeddings.
        times: batches a round.
    """
    patches = np.load(Path(folder) / "patches.npy")
    wanted = np.load(Path(folder) / "embeddings.npy")
    found = np.asarray(embed(patches), dtype=np.float32)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    embed(patches)

    def run():
        for _ in range(times):
            embed(patches)
        return {"items": times * len(patches), "error": error}

    return run
