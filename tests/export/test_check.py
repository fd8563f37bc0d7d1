"""The recordings that an export is compared on: the run's own, wherever they lay."""

import numpy as np
import pytest

import toy
import unfreeze
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.export.check import MOST_TESTED, run_clips

pytest.importorskip("tensorflow")


def test_a_run_with_background_is_compared_on_its_own_clips(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=6, classes=("high", "low"))
    quiet = toy.write_sounds(tmp_path / "more", clips=6, classes=("noise",))
    unfreeze.SoundClassifier.train(
        data, "head_only", tmp_path / "run", backbone="toy", epochs=1, background=quiet
    )
    found = run_clips(tmp_path / "run", "test", MOST_TESTED, FrontEnd())
    assert found.source.endswith("test clips of the run")
    assert len(found.waveforms) >= 3
    assert all(np.isfinite(waveform).all() for waveform in found.waveforms)


def test_without_the_recordings_synthetic_sounds_stand_in_and_it_is_said(tmp_path):
    found = run_clips(tmp_path / "gone", "test", MOST_TESTED, FrontEnd())
    assert found.source == f"{len(found.waveforms)} synthetic sounds (no test clips found)"
