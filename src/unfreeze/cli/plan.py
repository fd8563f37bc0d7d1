"""`unfreeze plan MODEL_OR_BACKBONE`: what a schedule would train, and the schedule as a file."""

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from unfreeze.cli.arguments import Json, takes
from unfreeze.errors import ScheduleError, UnfreezeError
from unfreeze.pipeline.train_options import TrainOptions

if TYPE_CHECKING:
    import keras

    from unfreeze.core.schedule import Schedule

# A backbone has no classes yet; their number only affects the last layer.
_CLASSES = 10


def _of_no_data(**given: Any) -> TrainOptions:
    return TrainOptions(data=Path(), **given)


@takes(
    "schedule",
    "taps",
    make=_of_no_data,
    helps={
        "schedule": "Schedule: probe_tune, probe, two_stage, gradual, head_only, full, classic, "
        "or a YAML file."
    },
)
def plan(
    options: TrainOptions,
    model_or_backbone: Annotated[
        str,
        typer.Argument(
            help="A .keras file, or a backbone (with the usual head): its name, or its YAML file."
        ),
    ],
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the schedule to this YAML file.")
    ] = None,
    custom_objects: Annotated[
        list[str] | None,
        typer.Option(
            "--custom-objects",
            help="A class or function of yours that the model is made of, as module:Name; the "
            "module is imported. May be given several times.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what each stage of a schedule would train; write the schedule to edit it."""
    from unfreeze.backend import import_keras
    from unfreeze.pipeline.chosen_schedule import check_head, resolve_schedule
    from unfreeze.pipeline.train_options import HEAD

    if write is not None and write.exists():
        raise ScheduleError(f"{write} exists: choose another name, or remove the file first")
    import_keras()
    # Before the model is built, which takes seconds.
    found = resolve_schedule(options)
    from unfreeze.core.boundary import check_stages, plan_stage
    from unfreeze.core.graph import flatten
    from unfreeze.core.schedule_file import schedule_as_plain, write_schedule

    model, head = _model(model_or_backbone, found, options.taps, custom_objects or ())
    graph = flatten(model)
    if head != HEAD:
        found = resolve_schedule(options, head)
    elif not model_or_backbone.endswith(".keras"):
        check_head(found, options.taps)
    plans = [plan_stage(graph, selection) for selection in check_stages(graph, found)]
    if write is not None:
        write_schedule(found, write)
    if json:
        report = {
            "model": model_or_backbone,
            "schedule": schedule_as_plain(found),
            "stages": [stage.as_dict() for stage in plans],
            "written": None if write is None else str(write),
        }
        typer.echo(json_module.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    _show(model_or_backbone, found.name, plans, write)


def _model(
    name: str, schedule: "Schedule", taps: str, custom: Sequence[str]
) -> "tuple[keras.Model, str]":
    """The model to plan for, and the pattern of its head."""
    from unfreeze.audio.clip_model import parts_of, patch_model
    from unfreeze.backbones.backbone_card import CARDS
    from unfreeze.backbones.network_file import SUFFIXES
    from unfreeze.backbones.registry import get_backbone
    from unfreeze.core.keras_file import named_objects
    from unfreeze.pipeline.backbone_limits import check_limits
    from unfreeze.pipeline.patch_training import tap_names
    from unfreeze.pipeline.train_options import DEFAULT_TAPS, HEAD, NO_AUGMENT

    path = Path(name)
    if path.suffix != ".keras":
        if path.exists() and path.suffix.lower() not in (*CARDS, *SUFFIXES):
            raise UnfreezeError(f"{name}: give a .keras file, as written by model.save")
        backbone = get_backbone(name)
        check_limits(backbone, schedule, NO_AUGMENT)
        read = backbone.taps if backbone.card is not None and taps == DEFAULT_TAPS else taps
        base = backbone.build(weights=None)
        return patch_model(base, _CLASSES, seed=0, taps=tap_names(read)), HEAD
    model = _load(path, named_objects(custom))
    try:
        return parts_of(model)[0], HEAD
    except ValueError:
        return model, "head"


def _load(path: Path, custom: dict[str, Any]) -> "keras.Model":
    import keras

    from unfreeze.core.keras_file import check_keras_file

    check_keras_file(path, custom)
    try:
        return keras.saving.load_model(path, custom, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for damaged or foreign files.
        reason = str(error).strip().split("\n")[0]
        raise UnfreezeError(f"{path} cannot be loaded by Keras: {reason}") from error


def _show(model: str, schedule: str, plans: Any, write: Path | None) -> None:
    from unfreeze.report.tables import plan_table

    console = Console(highlight=False)
    console.print(plan_table(plans, f"{schedule} on {model}"))
    total = plans[0]
    console.print(
        f"\n{total.weights_total:,} weights in {total.layers_total} layers in all.", markup=False
    )
    if write is not None:
        console.print(f"Written to {write}; edit it and use it with --schedule.", markup=False)
