"""What was fitted to recordings is found again, to the bit, or computed again."""

import numpy as np
import pytest

import unfreeze
from toy import build_toy
from unfreeze.audio.noisy_patches import make_bank
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core.boundary import inference_cut
from unfreeze.core.graph import flatten
from unfreeze.core.read_out import projection_of
from unfreeze.pipeline import in_noise
from unfreeze.pipeline import kept_fits as module
from unfreeze.pipeline.depth_profile import depth_profile
from unfreeze.pipeline.kept_fits import adapt_once, fit_key, once


class Patches:
    """Patches in memory with a fingerprint; counts how many were read."""

    def __init__(self, name, clips=24):
        rng = np.random.default_rng(len(name))
        self.clip = np.arange(clips)
        self.values = rng.normal(-3, 1, size=(clips, 96, 64)).astype(np.float32)
        self.values[::2, :, :20] += 1.5
        self.fingerprint, self.shape, self.dtype = name, self.values.shape, self.values.dtype
        self.read = 0

    def __len__(self):
        return len(self.clip)

    def __getitem__(self, rows):
        self.read += len(rows)
        return self.values[rows]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fits"


def weights(view, seed=0):
    model = unfreeze.read_out(build_toy(), classes=2, pool="time", seed=1)
    adapt_once(model, view, seed)
    assert projection_of(model).is_fitted
    return projection_of(model).get_weights()


def test_a_projection_is_fitted_once(cache):
    view = Patches("one")
    first = weights(view)
    read = view.read
    assert read > 0
    for a, b in zip(first, weights(view), strict=True):
        np.testing.assert_array_equal(a, b)
    assert view.read == read
    plain = unfreeze.read_out(build_toy(), classes=2, pool="time", seed=1)
    unfreeze.adapt(plain, view.values)
    np.testing.assert_array_equal(projection_of(plain).get_weights()[0], first[0])
    # Other data, or another seed, are another fit.
    weights(view, seed=1)
    weights(Patches("other"))
    assert len(list(cache.iterdir())) == 3


def test_a_profile_is_computed_once(cache):
    views, labels = (Patches("train"), Patches("held")), np.arange(24) % 2
    first = depth_profile(build_toy(), *views, labels)
    read = [view.read for view in views]
    assert depth_profile(build_toy(), *views, labels) == first
    assert [view.read for view in views] == read
    depth_profile(build_toy(), *views, 1 - labels)
    network = build_toy()
    network.get_layer("block1_conv").kernel.assign(network.get_layer("block1_conv").kernel * 2)
    depth_profile(network, *views, labels)
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_file_is_computed_again(cache):
    key = fit_key("x", [Patches("one")], inference_cut(flatten(build_toy())), [np.arange(3), 1])
    made = []

    def fit():
        made.append(1)
        return {"a": np.arange(1000.0)}

    for _ in range(2):
        np.testing.assert_array_equal(once(key, fit)["a"], np.arange(1000.0))
    assert len(made) == 1
    file = cache / key / "fit.npz"
    content = file.read_bytes()
    # The directory at its end says how each member is to be read.
    places = [2000, *range(len(content) - 120, len(content))]
    for damaged in (*(with_changed_byte(content, place) for place in places), b"", b"PK"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(once(key, fit)["a"], np.arange(1000.0))
    assert len(made) > 60


def with_changed_byte(content, place):
    changed = bytearray(content)
    changed[place] ^= 255
    return bytes(changed)


def test_the_oldest_are_removed(cache, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT", 3000)
    for name in "abc":
        once(name, lambda: {"a": np.zeros(200)})
    assert len(list(cache.iterdir())) == 1


def test_without_a_fingerprint_nothing_is_kept(cache):
    assert fit_key("x", [np.zeros(3)], inference_cut(flatten(build_toy())), []) is None
    assert once(None, lambda: {"a": np.ones(1)})["a"] == 1
    assert not cache.exists()


def test_background_is_made_once_and_draws_go_on_as_after_it(cache):
    front_end = FrontEnd()
    plain, first, second = (np.random.default_rng(3) for _ in "abc")
    expected = make_bank(front_end, 1, plain)
    for rng in (first, second):
        found = in_noise._kept_bank(front_end, 1, rng)
        np.testing.assert_array_equal(found.patches, expected.patches)
        np.testing.assert_array_equal(found.clip, expected.clip)
        assert (found.kind.tolist(), found.kinds) == (expected.kind.tolist(), expected.kinds)
    assert plain.uniform() == first.uniform() == second.uniform()
    assert len(list(cache.iterdir())) == 1
