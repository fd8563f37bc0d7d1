import numpy as np
import pytest

import toy
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError
from unfreeze.pipeline import inference


class Counting:
    """Stands for a patch model: gives the mean of each patch, notes the batch sizes."""

    def __init__(self):
        self.sizes = []

    def predict_on_batch(self, patches):
        self.sizes.append(len(patches))
        mean = patches.mean(axis=(1, 2))
        return np.stack([mean, -mean], axis=1)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.0, 150.0])
def test_the_mean_is_over_all_patches_whatever_the_length(seconds):
    rng = np.random.default_rng(0)
    waveform = rng.normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)
    front_end, model = FrontEnd(), Counting()
    scores = inference.waveform_scores(model, front_end, waveform)
    frames = log_mel_frames(waveform, front_end)
    starts = np.arange(0, len(frames) - 95, 48)
    expected = np.mean([frames[start : start + 96].mean() for start in starts])
    np.testing.assert_allclose(scores, [expected, -expected], rtol=1e-5)
    assert len(starts) == front_end.patches(len(waveform))
    assert set(model.sizes) <= set(inference.batch_sizes((96, 64)))


@pytest.mark.parametrize(
    ("waveform", "cause"),
    [
        (np.zeros(0, np.float32), "mono"),
        (np.zeros((2, 8), np.float32), "mono"),
        (np.array([0.0, np.inf], np.float32), "infinite"),
    ],
)
def test_a_waveform_that_is_none_is_refused(waveform, cause):
    with pytest.raises(DataError, match=cause):
        inference.waveform_scores(Counting(), FrontEnd(), waveform)


def test_file_scores_are_those_of_the_decoded_waveform(tmp_path):
    from unfreeze.audio.decode import decode

    path = sorted(toy.write_sounds(tmp_path, clips=1).rglob("*.wav"))[0]
    np.testing.assert_array_equal(
        inference.file_scores(Counting(), FrontEnd(), path),
        inference.waveform_scores(Counting(), FrontEnd(), decode(path)),
    )


def test_a_fused_model_scores_as_the_model_does():
    from unfreeze.audio.clip_model import patch_model

    model = patch_model(toy.build_toy(), 3, seed=0)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if "bn" in layer.name:
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size=layer.moving_variance.shape))
    patches = rng.normal(-3, 2, size=(5, 96, 64)).astype(np.float32)
    fast = inference.fused(model)
    # Two pairs of convolution and BatchNorm are one layer each.
    assert sum("fused" in layer.name for layer in fast.step_layers) == 2
    np.testing.assert_allclose(
        inference.patch_scores(fast, patches), inference.patch_scores(model, patches), atol=1e-5
    )
