"""Two models on the same clips: classes that only one of them knows, and what counts as worse."""

from pathlib import Path

import numpy as np
import pytest

from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.pipeline.paired_change import fallen, paired_change


@pytest.mark.parametrize("several", [False, True])
def test_classes_that_one_model_lacks_have_no_score_there(several):
    labels = ("cat", "dog", "owl")
    clips = tuple(
        Clip(Path(f"{n}.wav"), labels[n % 3], f"{n}", None, 1.0, 100, 1, f"{n}") for n in range(12)
    )
    manifest = Manifest(Path(), clips, labels, (), "", several)
    chosen = np.arange(2, 11)
    truth = np.eye(3)[chosen % 3]
    before = np.where(truth[:, :2].any(axis=1)[:, None], truth[:, :2], 0.5)
    found = paired_change(manifest, chosen, (before, labels[:2]), (truth, labels), 0)
    name = "mean_average_precision" if several else "accuracy"
    assert found["clips"] == 9
    assert found["after"][name] == 1
    assert found["difference"][name] > 0.2
    assert fallen(found) is None
    wrong = np.roll(truth, 1, axis=1)
    other = paired_change(manifest, chosen, (truth, labels), (wrong, labels), 0)
    assert name.replace("_", " ") in fallen(other)
    assert "1.000 before" in fallen(other)


def test_without_clips_nothing_has_fallen():
    assert fallen(None) is None
    assert fallen({"intervals": {"accuracy": None}}) is None
    assert fallen({"intervals": {"accuracy": [-0.2, 0.0]}}) is None
