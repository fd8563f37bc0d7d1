"""EfficientAT's weights: each tensor of the published file by name and shape, else refused."""

import numpy as np
import pytest
import safetensors.numpy

import efficientat_made as made
from unfreeze.backbones import efficientat_spec, pretrained_weights
from unfreeze.backbones.efficientat_spec import MN04, MN10
from unfreeze.backbones.weight_files import check_tensors, tensor_digest
from unfreeze.errors import WeightsError

SPEC = efficientat_spec.weights_spec(MN04)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(SPEC.env, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def published():
    """The published names and shapes, filled by a formula."""
    with np.load(made.NUMBERS) as numbers:
        return made.state(numbers["mn04_names"], numbers["mn04_shapes"])


@pytest.fixture
def file(published, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / MN04.file
    torch.save({name: torch.tensor(value) for name, value in published.items()}, path)
    return path


def test_tensors_of_the_networks():
    sizes = {}
    for size in (MN04, MN10):
        shapes = efficientat_spec.tensor_shapes(size)
        learned = [shape for name, shape in shapes.items() if "/moving_" not in name]
        sizes[size.name] = sum(int(np.prod(shape)) for shape in learned)
        assert abs(size.bytes / (4 * sum(int(np.prod(s)) for s in shapes.values())) - 1) < 0.01
    # 0.983 and 4.88 million, as published.
    assert sizes == {"efficientat-mn04": 983_599, "efficientat-mn10": 4_876_831}
    assert (MN04.embedding_size, MN10.embedding_size) == (384, 960)


@pytest.mark.parametrize("size", [MN04, MN10])
def test_each_published_tensor_is_used(size):
    short = size.name.removeprefix("efficientat-")
    with np.load(made.NUMBERS) as numbers:
        state = made.state(numbers[f"{short}_names"], numbers[f"{short}_shapes"])
    tensors = efficientat_spec.converted(state, size, "file")
    check_tensors(tensors, efficientat_spec.weights_spec(size), "file")
    # Behind each of the 46 BatchNorms there is one count more, which is not used.
    counts = sum(name.endswith("num_batches_tracked") for name in state)
    assert len(tensors) == len(state) - counts
    np.testing.assert_array_equal(
        tensors["block5_excite_conv/kernel"][0, 0],
        state["features.5.block.2.conc_se_layers.0.fc2.weight"].T,
    )
    # Bands and frames change places.
    np.testing.assert_array_equal(
        tensors["block0_conv/kernel"][2, 1, 0], state["features.0.0.weight"][:, 0, 1, 2]
    )


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda s: s.pop("features.3.block.1.1.bias"), "features.3.block.1.1.bias is missing"),
        (lambda s: s.update({"features.17.0.weight": s["features.0.0.weight"]}), "is unknown"),
        (
            lambda s: s.update({"classifier.5.bias": np.zeros(10, np.float32)}),
            r"classifier.5.bias has shape \(10,\)",
        ),
        (
            lambda s: s.update({"classifier.5.bias": np.zeros(527, np.int64)}),
            "holds int64 numbers",
        ),
        (
            lambda s: s.update({"classifier.5.bias": np.full(527, np.nan, np.float32)}),
            "no finite numbers",
        ),
    ],
)
def test_other_weights_are_refused_with_the_file_to_give(published, change, cause):
    state = dict(published)
    change(state)
    with pytest.raises(WeightsError, match=f"mine.pt does not hold .*{cause}.*mn04_as_mAP_432.pt"):
        efficientat_spec.converted(state, MN04, "mine.pt")


def test_the_weights_of_another_size_are_refused(published):
    with pytest.raises(WeightsError, match=r"efficientat-mn10: features.0.0.weight has shape"):
        efficientat_spec.converted(published, MN10, "mine.pt")


def test_the_users_file_is_installed_once_and_then_known(cache, file, published):
    found = pretrained_weights.resolve_weights(SPEC, path=file)
    assert found == cache / "weights" / "efficientat-mn04.safetensors"
    assert pretrained_weights.resolve_weights(SPEC) == found
    known = pretrained_weights.known(SPEC, found)
    expected = tensor_digest(efficientat_spec.converted(published, MN04, "file"))
    assert known.sha256 == pretrained_weights.status(SPEC).sha256 == expected
    # From a file that says nothing of itself, too.
    bare = cache / "bare.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(found), bare)
    assert pretrained_weights.known(SPEC, bare).sha256 == expected


def test_a_damaged_file_in_the_cache_is_refused_with_a_cure(cache, file):
    found = pretrained_weights.resolve_weights(SPEC, path=file)
    data = bytearray(found.read_bytes())
    data[-3] ^= 0x40
    found.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"(?s)checksum.*weights --path {MN04.file}"):
        pretrained_weights.resolve_weights(SPEC)


def test_without_the_file_the_message_says_where_it_is(cache):
    with pytest.raises(WeightsError) as refused:
        pretrained_weights.resolve_weights(SPEC)
    for part in (
        f"releases/download/v0.0.1/{MN04.file}",
        f"unfreeze weights --path {MN04.file} --backbone efficientat-mn04",
        "UNFREEZE_EFFICIENTAT_MN04_WEIGHTS",
    ):
        assert part in str(refused.value)
    with pytest.raises(WeightsError, match="you download them yourself"):
        pretrained_weights.fetch_weights(SPEC)


def test_class_names():
    names = efficientat_spec.class_names()
    assert len(set(names)) == 527
    # Of the published list: first and last, and beside the six that YAMNet lacks.
    assert names[:3] == (
        "Speech",
        "Male speech, man speaking",
        "Female speech, woman speaking",
    )
    assert (names[12], names[277], names[526]) == (
        "Battle cry",
        "Funny music",
        "Field recording",
    )
