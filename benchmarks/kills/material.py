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
_FEW, _MANY, _RECORDINGS, _CLIPS = 6, 60, 30, 12


def make_material(folder: Path) -> Material:
    """Make it, or find it made by the same code; of other code nothing is kept."""
    note, material = folder / "made.json", Material(folder)
    if note.is_file() and json.loads(note.read_text())["code"] == same_code():
        return material
    shutil.rmtree(folder, ignore_errors=True)
    write_demo_data(material.few, clips_per_class=_FEW)
    write_demo_data(material.many, clips_per_class=_MANY, seed=1)
    clips = sorted(material.many.glob("*/*.wav"))
    rng = np.random.default_rng(0)
    for number in range(_RECORDINGS):
        chosen = [soundfile.read(clips[i])[0] for i in rng.integers(len(clips), size=_CLIPS)]
        place = material.field / f"site_{number % 4}" / f"{number:02}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, np.concatenate(chosen), _RATE)
    note.write_text(json.dumps({"code": same_code()}))
    return material


def same_code() -> str:
    """A digest of all code that decides the results."""
    root = Path(commands.__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted([*(root / "src").rglob("*.py"), *(root / "benchmarks/kills").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
