"""The demo's recordings: a folder of folders, made by `unfreeze.audio.synth`."""

import io
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from unfreeze.audio.synth import CLASSES, synthesize
from unfreeze.errors import DataError
from unfreeze.files import atomic_path

_RATE = 16_000


def write_demo_data(
    folder: str | os.PathLike[str],
    *,
    clips_per_class: int = 30,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo's data: a folder per class with 16 kHz, 16-bit WAV files.

    Args:
        folder: where the folders of the classes go. Clips of an earlier demo are
            replaced, and removed where they were more.
        clips_per_class: number of clips of each class.
        seed: of all variation.
        progress: called as `progress(done, total)` after each clip.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds something else than clips of a demo, which
            would be trained on.
    """
    root, total, done = Path(folder), len(CLASSES) * clips_per_class, 0
    _clear(root)

    def encoded(kind: int, number: int) -> bytes:
        clip = synthesize(CLASSES[kind], np.random.default_rng([seed, kind, number]), _RATE)
        buffer = io.BytesIO()
        soundfile.write(buffer, clip, _RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()

    # Half of the time goes into waiting for the disk, so sounds are made meanwhile.
    with ThreadPoolExecutor(2) as pool:
        for kind, label in enumerate(CLASSES):
            files = pool.map(partial(encoded, kind), range(clips_per_class))
            for number, content in enumerate(files):
                with atomic_path(root / label / f"{label}_{number:03d}.wav") as path:
                    path.write_bytes(content)
                done += 1
                if progress:
                    progress(done, total)
    return root


def _clear(root: Path) -> None:
    """Remove the clips of an earlier demo, having seen that there is nothing else."""
    old = sorted(path for path in root.rglob("*") if not path.is_dir()) if root.exists() else []
    for path in old:
        label = path.parent.name
        ours = label in CLASSES and re.fullmatch(rf"{label}_\d{{3,}}\.wav", path.name)
        if path.parent.parent != root or not ours:
            raise DataError(
                f"{root} holds {path.relative_to(root)}, which is no sound of the demo: give "
                "another folder with --out (the sounds go beside it)"
            )
    for path in old:
        path.unlink()
