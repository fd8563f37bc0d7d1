"""Fixtures shared with the tests of detection, and an index of toy recordings."""

import numpy as np
import pytest
import soundfile

import toy
from toy_detection import classifier, scene, scene_samples, toy_run  # noqa: F401


@pytest.fixture(scope="session")
def field(tmp_path_factory):
    """Six recordings: a scene, its first 11 s, a high and a low tone, noise, digital silence."""
    folder = tmp_path_factory.mktemp("field")
    rng, ticks = np.random.default_rng(5), np.arange(3 * toy.RATE) / toy.RATE
    sounds = {
        "a": scene_samples(),
        "b": scene_samples()[: 11 * toy.RATE],
        "high": 0.3 * np.sin(6.283 * 3000 * ticks),
        "low": 0.3 * np.sin(6.283 * 200 * ticks),
        "noise": 0.3 * rng.normal(size=len(ticks)).clip(-3, 3),
        "silence": np.zeros(2 * toy.RATE),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, toy.RATE)
    return folder


@pytest.fixture(scope="session")
def index(tmp_path_factory, field, toy_run):  # noqa: F811
    """An index of these, with the toy classifier."""
    from unfreeze.search.embedding import embed

    return embed(sorted(field.iterdir()), tmp_path_factory.mktemp("index") / "index", run=toy_run)
