"""The registry of backbones."""

import subprocess
import sys

import pytest

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.backbones.registry import BACKBONES, get_backbone
from unfreeze.errors import UnfreezeError


def test_yamnet_is_known():
    backbone = get_backbone("yamnet")
    assert backbone.embedding_size == 1024
    assert backbone.front_end == FrontEnd()
    assert backbone.licence.name == "Apache-2.0"
    assert backbone.weights.env == "UNFREEZE_YAMNET_WEIGHTS"


def test_unknown_name_lists_the_known_ones_and_the_closest():
    with pytest.raises(
        UnfreezeError,
        match=r"'yamnett'; known: yamnet, birdnet, efficientat-mn04, efficientat-mn10. "
        r"Did you mean 'yamnet'\?",
    ):
        get_backbone("yamnett")
    with pytest.raises(UnfreezeError, match=r"'qqq'; known: .*-mn10\. For a network of "):
        get_backbone("qqq")


@pytest.mark.parametrize("name", BACKBONES)
def test_built_model_fits_its_entry(name):
    backbone = get_backbone(name)
    model = backbone.build(weights=None)
    front = backbone.front_end
    assert model.input_shape == (None, *front.patch_shape)
    assert model.output_shape == (None, backbone.embedding_size)


def test_no_keras_before_a_model_is_built():
    code = (
        "import sys, unfreeze.backbones.pretrained_weights as w\n"
        "from unfreeze.backbones.registry import get_backbone\n"
        "w.status(get_backbone('yamnet').weights);"
        "sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow', 'torch', 'jax', 'h5py')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
