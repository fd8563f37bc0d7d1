"""Windows of samples, and a frozen network's outputs for them, on the CPU."""

import numpy as np
import pytest

import networks
from unfreeze.audio.frame_writer import waveform_frames
from unfreeze.audio.front_ends import frame_maker, frames_of, patches_of
from unfreeze.backbones.frontend import SampleWindows
from unfreeze.backbones.registry import get_backbone
from unfreeze.detection.scan import FrameStream

FRONT = SampleWindows(
    *(100, 40, 20), bands=0, patch_frames=1, patch_hop=1, min_samples=40, smallest_hop=10
)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 60, 61, 333])
def test_each_sample_is_in_a_window_and_the_rest_is_zero(samples):
    waveform = RNG.normal(size=samples).astype(np.float32)
    windows = patches_of(waveform, FRONT)
    assert windows.shape == (FRONT.patches(samples), 40)
    padded = np.zeros((len(windows) - 1) * 20 + 40, np.float32)
    padded[:samples] = waveform
    for number, window in enumerate(windows):
        np.testing.assert_array_equal(window, padded[20 * number : 20 * number + 40])


def test_a_waveform_has_one_axis():
    with pytest.raises(ValueError, match="one axis"):
        frames_of(np.zeros((2, 100), np.float32), FRONT)


def streamed(waveform, front_end, rng):
    stream, parts, at = FrameStream(front_end), [], 0
    while at < len(waveform):
        size = int(rng.integers(1, 3 * front_end.window))
        parts.append(stream.push(waveform[at : at + size]))
        at += size
    return np.concatenate([*parts, stream.finish()])


def test_pieces_give_the_same_as_the_whole(tmp_path):
    pytest.importorskip("onnxruntime")
    networks.write_onnx(tmp_path / "net.onnx")
    networks.write_card(tmp_path / "net.onnx", embedding="embedding")
    for front in (FRONT, get_backbone(str(tmp_path / "net.onnx")).front_end):
        waveform = RNG.normal(size=75 * front.hop + 7).astype(np.float32)
        whole = frames_of(waveform, front)
        np.testing.assert_array_equal(streamed(waveform, front, RNG), whole)
        blocks = iter(np.array_split(waveform, 9))
        pieces = np.concatenate(list(waveform_frames(blocks, frame_maker(front))))
        np.testing.assert_array_equal(pieces, whole)


def test_a_networks_patches_are_its_outputs(tmp_path):
    pytest.importorskip("onnxruntime")
    networks.write_onnx(tmp_path / "net.onnx")
    networks.write_card(tmp_path / "net.onnx", embedding="[scores, embedding]")
    front = get_backbone(str(tmp_path / "net.onnx")).front_end
    waveform = RNG.normal(0, 0.1, 30_001).astype(np.float32)
    plain = SampleWindows(
        *(front.sample_rate, front.window, front.hop),
        patch_frames=1, patch_hop=1, min_samples=front.window,
    )  # fmt: skip
    wanted = networks.expected(patches_of(waveform, plain))
    found = patches_of(waveform, front)
    assert found.shape == (front.patches(30_001), 5 + networks.BANDS)
    np.testing.assert_allclose(found[:, :5], wanted["scores"], 1e-4, 1e-5)
    np.testing.assert_allclose(found[:, 5:], wanted["embedding"], 1e-4)
    # A finer hop gives more of the same.
    finer = patches_of(waveform, front.with_steps(1))
    whole = len(finer) // front.steps
    assert whole >= 5
    np.testing.assert_array_equal(finer[:: front.steps][:whole], found[:whole])
