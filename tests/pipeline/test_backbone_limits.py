"""What some networks do not allow is refused before any work, with the cure."""

import pytest

import networks
from unfreeze.backbones.registry import get_backbone
from unfreeze.core.presets import PRESETS
from unfreeze.core.schedule import Schedule, Stage
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.pipeline.backbone_limits import (
    check_limits,
    limit_notes,
    trains_head_alone,
    usable_augment,
)
from unfreeze.pipeline.train_options import HEAD


@pytest.fixture
def frozen(tmp_path):
    pytest.importorskip("onnxruntime")
    networks.write_onnx(tmp_path / "net.onnx", outputs=("scores",))
    return get_backbone(str(networks.write_card(tmp_path / "net.onnx")))


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "raw.yaml").write_text("model: own:raw\nsample_rate: 16000\nwindow: 1\n")
    return get_backbone(str(tmp_path / "raw.yaml"))


def test_only_schedules_of_the_head_run_on_a_frozen_network(frozen):
    allowed = {"probe", "head_only"}
    for name, make in PRESETS.items():
        schedule = make(head=HEAD)
        if name in allowed:
            check_limits(frozen, schedule, "strong")
            continue
        with pytest.raises(ScheduleError, match=f"of {schedule.name} would train it: add --sch"):
            check_limits(frozen, schedule, "strong")
    assert allowed < set(PRESETS)
    own = Schedule((Stage("mine", train=["transfer_output", "head"]),))
    check_limits(frozen, own, "strong")
    assert not trains_head_alone(["head", "top:1"])
    assert not trains_head_alone("all")


def test_other_options(frozen, samples):
    head = PRESETS["probe"](head=HEAD)
    with pytest.raises(UnfreezeError, match=r"--in-noise adds noise .* leave out --in-noise"):
        check_limits(frozen, head, "none", in_noise=True)
    check_limits(samples, PRESETS["full"](head=HEAD), "strong", in_noise=True)
    for network, given in ((frozen, "numbers"), (samples, "samples")):
        with pytest.raises(UnfreezeError, match=f"--augment light changes .* given {given}"):
            check_limits(network, head, "light")
        assert usable_augment(network, "strong") == "none"
        assert len(limit_notes(network, "strong")) == 1
        assert limit_notes(network, "none") == ()


def test_nothing_is_refused_for_our_own_networks():
    for name in ("yamnet", "birdnet"):
        for make in PRESETS.values():
            check_limits(get_backbone(name), make(head=HEAD), "light", in_noise=True)
        assert limit_notes(get_backbone(name), "strong") == ()
        assert usable_augment(get_backbone(name), "light") == "light"
