"""`unfreeze export`: a trained classifier for other runtimes, checked after writing."""

import importlib.util
import json as json_module
import os
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.arguments import Json
from unfreeze.export.formats import FORMATS, check_request, get_format

FIXED_OR_ANY = "Samples of a fixed input, such as 15600, for one sound at a time; or 'any'."


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a .keras file.")],
    format: Annotated[str, typer.Option("--format", "-f", help=", ".join(FORMATS))],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File or folder; in the run folder if not given."),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="float16 or int8, for smaller files.")
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Add the mean embedding as a second output.")
    ] = False,
    length: Annotated[str, typer.Option(help=FIXED_OR_ANY)] = "any",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing export.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a classifier as LiteRT, ONNX, OpenVINO, SavedModel or TensorFlow.js.

    The file is loaded in its own runtime and compared with the model on the
    run's test clips; if they differ, it is not kept.
    """
    from unfreeze.backend import import_keras

    form = get_format(format)
    samples = _samples(length)
    check_request(form, quantize, samples)
    if importlib.util.find_spec("tensorflow"):
        # A saved classifier loads on every backend; only this one writes the formats.
        os.environ["KERAS_BACKEND"] = "tensorflow"
    import_keras()
    from unfreeze.export.exporter import export_model

    done = export_model(
        run,
        format,
        out,
        quantize=quantize,
        embeddings=embeddings,
        length=samples,
        overwrite=overwrite,
    )
    if json:
        typer.echo(json_module.dumps(done.details, indent=2, ensure_ascii=False))
        return
    check = done.details["check"]
    speed, hard = check["speed"], check["hard_sounds"]
    typer.echo(f"{done.path}  {done.details['bytes'] / 1e6:.1f} MB")
    typer.echo(f"compared with the model on {check['compared_on']}, run by {check['runtime']}:")
    typer.echo(f"  largest difference  {check['largest_difference']:.1e}")
    typer.echo(f"  on hard sounds      {hard['largest_difference']:.1e} ({hard['compared_on']})")
    typer.echo(f"  in the front end    {check['front_end_difference']:.1e}")
    if "embedding_difference" in check:
        part = f"{check['embedding_difference']:.1e} of the largest value"
        typer.echo(f"  in embeddings       {part}")
    typer.echo(
        f"  same top class      {check['top_class_agreement']:.1%} of {check['decided']} "
        "sounds with a clear top class"
    )
    for name in ("export", "keras"):
        typer.echo(
            f"  speed, {name:<11}  {speed[name]['milliseconds']:.1f} ms for "
            f"{speed['samples'] / done.details['sample_rate']:.2f} s of sound: "
            f"{speed[name]['times_real_time']:.0f} times real time"
        )
    if "calibrated_on" in check:
        typer.echo(f"calibrated on {check['calibrated_on']}")
    if done.light is not None:
        typer.echo(
            f"{done.light}  predict, listen, serve and evaluate run from it where unfreeze[light] "
            "is installed, without TensorFlow"
        )


def _samples(length: str) -> int | None:
    if length == "any":
        return None
    if not length.isdecimal():
        raise typer.BadParameter(f"{length!r} is neither a number of samples nor 'any'")
    return int(length)
