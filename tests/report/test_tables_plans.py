"""The table of a schedule: what it says, and that it fits."""

import pytest
from rich.console import Console

from unfreeze.core.boundary import Span, StagePlan
from unfreeze.report.tables import plan_table


def stage(**changes: object) -> StagePlan:
    values: dict[str, object] = {
        "stage": "head",
        "epochs": 100,
        "trains": ("transfer_dense", "transfer_output"),
        "spans": (Span("transfer_dense", "transfer_output", 2),),
        "layers_total": 56,
        "weights_trained": 66_250,
        "weights_updating": 0,
        "weights_total": 3_283_594,
        "prefix_layers": 54,
        "prefix_work": 0.999,
        "cached": True,
        "boundary": ("embedding",),
        "cache_bytes": 4096,
        "silenced": (),
        "live_augmentation": (),
    }
    return StagePlan(**{**values, **changes})  # type: ignore[arg-type]


def shown(*plans: StagePlan, width: int = 80, title: str = "") -> list[str]:
    console = Console(width=width, record=True, color_system=None)
    with console.capture() as capture:
        console.print(plan_table(plans, title))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert all(len(line) <= width for line in lines)
    return lines


def test_a_head_stage_and_one_that_trains_everything() -> None:
    everything = stage(
        stage="all",
        epochs=30,
        trains=("conv1", "transfer_dense", "transfer_output"),
        spans=(Span("conv1", "transfer_output", 29),),
        weights_trained=3_250_762,
        prefix_layers=0,
        prefix_work=0.0,
        cached=False,
        boundary=(),
        cache_bytes=0,
    )
    lines = shown(stage(), everything, title="two_stage on yamnet")
    assert lines[0] == "two_stage on yamnet"
    assert lines[3].split() == [
        *["head", "≤", "100", "transfer_dense", "…", "transfer_output"],
        *["66,250", ">", "99", "%", "4.0", "KB"],
    ]
    assert lines[4].split() == ["after", "embedding", "2", "layers"]
    assert lines[5].split()[3:] == ["conv1", "…", "transfer_output", "3,250,762", "–", "–"]
    assert lines[6].split() == ["3", "layers"]


def test_a_stage_whose_cache_would_not_pay() -> None:
    lines = shown(stage(prefix_work=0.11, cached=False))
    assert lines[2].split()[-3:] == ["11", "%", "–"]
    assert lines[3].split()[:2] == ["after", "embedding"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (24, "24 B"),
        (1024, "1.0 KB"),
        (49_152, "48 KB"),
        (2**20 * 3, "3.0 MB"),
        (2**30 * 5, "5.0 GB"),
        (None, "varies"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert shown(stage(cache_bytes=size))[2].endswith(text)


@pytest.mark.parametrize(
    ("share", "text"), [(0.674, " 67 % "), (0.9999, "> 99 %"), (1.0, "100 %"), (None, " ? ")]
)
def test_shares(share: float | None, text: str) -> None:
    assert text in shown(stage(prefix_work=share))[2]


def test_many_runs_boundaries_and_a_stage_left_out() -> None:
    names = [f"block{i}" for i in range(1, 7)]
    many = stage(
        epochs=0,
        trains=tuple(f"base/{name}" for name in names),
        spans=tuple(Span(f"base/{name}", f"base/{name}", 1) for name in names),
        boundary=("base/a", "base/b", "base/c", "base/d"),
    )
    text = "\n".join(shown(many))
    assert "left out" in text
    assert "block3" in text
    assert "block4" not in text
    assert "and 3 layers more" in text
    assert "after a, b +2" in text


def test_notes_on_dropout_and_augmentation() -> None:
    lines = shown(
        stage(silenced=("drop1", "drop2", "drop3", "drop4")),
        stage(stage="x", silenced=("drop1",), live_augmentation=("flip",)),
    )
    assert "Dropout in frozen layers are off: drop1, drop2, drop3 and 1 more." in lines
    assert any(line.startswith("No cache: flip draws at random first") for line in lines)


def test_long_names_and_markup_are_shown_as_they_are() -> None:
    long = "a_very_long_layer_name_that_goes_on_and_on_and_on"
    name = "[red]stage with a long name"
    lines = shown(
        stage(stage=name, trains=(long, "b" + long), spans=(Span(long, "b" + long, 2),)), width=80
    )
    assert "[red]" in "".join(lines)
    assert any("…" in line for line in lines)
