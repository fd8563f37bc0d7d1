"""What the killed commands work on: synthetic sounds and recordings, made once."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.kills import commands
from benchmarks.kills.commands import Material
from unfreeze.audio.demo_sounds import write_demo_data

_RATE = 16_000
_MANY, _RECORDINGS, _CLIPS = 60, 30, 12


def make_material(folder: Path, few: int) -> Material:
    """Make it, with so many sounds a class to train on, or find it made so by the same code."""
    note, material = folder / "made.json", Material(folder)
    made = {"code": same_code(), "clips": few}
    if note.is_file() and json.loads(note.read_text()) == made:
        return material
    shutil.rmtree(folder, ignore_errors=True)
    write_demo_data(material.few, clips_per_class=few)
    write_demo_data(material.many, clips_per_class=_MANY, seed=1)
    clips = sorted(material.many.glob("*/*.wav"))
    rng = np.random.default_rng(0)
    for number in range(_RECORDINGS):
        chosen = [soundfile.read(clips[i])[0] for i in rng.integers(len(clips), size=_CLIPS)]
        place = material.field / f"site_{number % 4}" / f"{number:02}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, np.concatenate(chosen), _RATE)
    note.write_text(json.dumps(made))
    return material


def same_code() -> str:
    """A digest of all code that decides the results."""
    root = Path(commands.__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted([*(root / "src").rglob("*.py"), *(root / "benchmarks/kills").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
