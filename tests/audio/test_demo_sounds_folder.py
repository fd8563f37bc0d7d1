"""The demo's recordings on disk."""

import numpy as np
import pytest
import soundfile

from unfreeze.audio.demo_sounds import CLASSES, synthesize, write_demo_data
from unfreeze.errors import DataError

RATE = 16_000


def test_demo_data_is_a_folder_of_folders(tmp_path):
    calls = []
    root = write_demo_data(
        tmp_path / "demo",
        clips_per_class=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert root == tmp_path / "demo"
    assert sorted(path.name for path in root.iterdir()) == list(CLASSES)
    assert calls == [(done, 40) for done in range(1, 41)]
    for label in CLASSES:
        names = sorted(path.name for path in (root / label).iterdir())
        assert names == [f"{label}_000.wav", f"{label}_001.wav"]
    info = soundfile.info(str(root / "rain" / "rain_001.wav"))
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    read, _ = soundfile.read(str(root / "rain" / "rain_001.wav"), dtype="float32")
    made = synthesize("rain", np.random.default_rng([0, CLASSES.index("rain"), 1]))
    assert np.abs(read - made).max() <= 1 / 32768


def test_demo_data_depends_on_the_seed_only(tmp_path):
    def contents(name, **settings):
        root = write_demo_data(tmp_path / name, **settings)
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.wav")}

    few = contents("few", clips_per_class=1)
    more = contents("more", clips_per_class=2)
    other = contents("other", clips_per_class=1, seed=1)
    assert len(few) == 20
    assert few.items() <= more.items()
    assert len(set(few.values()) | set(other.values())) == 40


def test_a_smaller_demo_leaves_nothing_of_a_larger_one(tmp_path):
    write_demo_data(tmp_path, clips_per_class=2)
    write_demo_data(tmp_path, clips_per_class=1)
    assert len(list(tmp_path.rglob("*.wav"))) == 20


@pytest.mark.parametrize("name", ["notes.txt", "dog/dog_000.wav", "rain/mine.wav"])
def test_a_folder_with_anything_else_is_refused_and_kept(tmp_path, name):
    write_demo_data(tmp_path, clips_per_class=1)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"holds {name}, which is not a sound of the demo"):
        write_demo_data(tmp_path, clips_per_class=1)
    assert len(list(tmp_path.rglob("*_000.wav"))) >= 20
    assert (tmp_path / name).read_text() == "mine"
