"""A frozen network's outputs for computed sounds are kept, and never trusted blindly."""

import numpy as np
import pytest

import networks
from unfreeze.audio.front_ends import patches_of
from unfreeze.audio.kept_outputs import patches_of_each
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.array_files import read_arrays

SOUNDS = [np.random.default_rng(n).normal(0, 0.1, 9_000 * n).astype("f4") for n in (1, 2, 3)]


@pytest.fixture
def front_end(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    networks.write_onnx(tmp_path / "net.onnx", outputs=("places",))
    return get_backbone(str(networks.write_card(tmp_path / "net.onnx"))).front_end


def kept(tmp_path):
    return list((tmp_path / "cache" / "features").glob("background-*/*"))


def same(found, front_end):
    for part, sound in zip(found, SOUNDS, strict=True):
        np.testing.assert_array_equal(part, patches_of(sound, front_end))


def test_they_are_computed_once(front_end, tmp_path):
    same(patches_of_each(SOUNDS, front_end), front_end)
    (file,) = kept(tmp_path)
    content = file.read_bytes()
    same(patches_of_each(SOUNDS, front_end), front_end)
    assert file.read_bytes() == content
    # Other sounds have a place of their own.
    patches_of_each(SOUNDS[:2], front_end)
    assert len(kept(tmp_path)) == 2


def test_a_damaged_file_is_made_again(front_end, tmp_path):
    patches_of_each(SOUNDS, front_end)
    (file,) = kept(tmp_path)
    content, wanted = file.read_bytes(), read_arrays(file)[0]["outputs"]
    for damaged in (content[:-40], content[:-40] + bytes(40), b""):
        file.write_bytes(damaged)
        same(patches_of_each(SOUNDS, front_end), front_end)
        np.testing.assert_array_equal(read_arrays(file)[0]["outputs"], wanted)


def test_a_cache_that_cannot_be_written_is_done_without(front_end, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "file"))
    same(patches_of_each(SOUNDS, front_end), front_end)


def test_nothing_is_kept_of_other_front_ends(front_end, tmp_path):
    found = patches_of_each(SOUNDS, FrontEnd())
    same(found, FrontEnd())
    assert kept(tmp_path) == []
