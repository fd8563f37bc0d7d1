"""The Keras network and the PyTorch network are one; the tasks are what they say."""

import keras
import numpy as np
import pytest
from benchmarks.same_task import pictures

torch = pytest.importorskip("torch")

from benchmarks.same_task import pretrain, vit_keras, vit_torch  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the PyTorch network, none of them as a new layer has it."""
    torch.manual_seed(0)
    network = vit_torch.ViT(pictures.SOURCE_CLASSES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("weights") / "vit.npz"
    vit_torch.save(network, path)
    return path


def test_both_networks_give_the_same_outputs(weights):
    theirs = vit_torch.pretrained(weights, pictures.TARGET_CLASSES).eval()
    ours = vit_keras.pretrained(weights, pictures.TARGET_CLASSES)
    assert ours.count_params() == sum(p.numel() for p in theirs.parameters())
    ours.get_layer("head").set_weights(
        [theirs.head.weight.detach().numpy().T, theirs.head.bias.detach().numpy()]
    )
    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    with torch.no_grad():
        expected = theirs(vit_torch.tensors((x, np.zeros(8, int)))[0]).softmax(1).numpy()
    found = keras.ops.convert_to_numpy(ours(x))
    assert np.ptp(expected, axis=0).min() > 0.01  # pictures differ, and so must their outputs
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_of_another_network_are_refused(weights, tmp_path):
    with np.load(weights) as kept:
        np.savez(tmp_path / "other.npz", **dict(kept), more=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz has weights .* \['more'\]"):
        vit_torch.pretrained(tmp_path / "other.npz", 5)


def test_pictures_depend_on_the_seed_alone(monkeypatch):
    for name, count in (("TRAIN", 30), ("VALIDATION", 20), ("TEST", 10)):
        monkeypatch.setattr(pictures, name, count)
    first, again, other = pictures.target(1), pictures.target(1), pictures.target(2)
    assert [len(part.x) for part in first] == [len(part.y) for part in first] == [30, 20, 10]
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)
    assert first.train.x.shape[1:] == (32, 32, 3)
    assert first.train.x.dtype == np.float32
    assert set(first.train.y) == set(range(pictures.TARGET_CLASSES))
    labels = pictures.source(200).y
    assert set(labels) == set(range(pictures.SOURCE_CLASSES))


def test_poorly_pretrained_weights_are_not_kept(monkeypatch, tmp_path):
    for name, count in (("COUNT", 64), ("HELD_BACK", 64), ("EPOCHS", 1)):
        monkeypatch.setattr(pretrain, name, count)
    path = tmp_path / "cache" / "vit.npz"
    run = pretrain.prepare({"path": str(path)})
    with pytest.raises(RuntimeError, match=r"only 0\.\d+ of the held-back pictures are right"):
        run()
    assert not path.exists()
    monkeypatch.setattr(pretrain, "ENOUGH", 0.0)
    run()
    first = path.stat().st_mtime_ns
    run()  # the file is there, so nothing is done
    assert path.stat().st_mtime_ns == first
