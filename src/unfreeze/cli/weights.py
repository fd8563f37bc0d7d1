"""`unfreeze weights`: where the pretrained weights are; download or verify them."""

import json as json_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unfreeze.errors import WeightsError

if TYPE_CHECKING:
    from unfreeze.backbones.pretrained_weights import WeightsStatus
    from unfreeze.backbones.weight_files import WeightsSpec


def weights(
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download the weights; replaces damaged ones.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the weights against their checksum.")
    ] = False,
    path: Annotated[
        Path | None,
        typer.Option(
            "--path",
            help="Verify your own file (as published, .weights.h5, .safetensors) and copy it to "
            "the cache.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Name of the backbone (see `unfreeze backbones`).")
    ] = "yamnet",
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence",
            "--accept-license",
            help="Accept the licence of the weights, where it must be accepted; it is remembered.",
        ),
    ] = False,
) -> None:
    """Show where the pretrained weights are; download or verify them."""
    # Imported here: `unfreeze --help` must not wait for numpy.
    from unfreeze.backbones import pretrained_weights as weights_store
    from unfreeze.backbones.registry import get_backbone

    spec = get_backbone(backbone).weights
    if fetch or path is not None or accept_licence:
        weights_store.settle_licence(spec, accept_licence)
    if path is not None:
        weights_store.install_file(path, spec)
    elif fetch:
        _fetch(spec)
    status = weights_store.status(spec)
    verified = None
    if verify or fetch or path is not None:
        weights_store.verify(status.path, spec)
        verified = True
    if json:
        report = asdict(status) | {"path": str(status.path), "verified": verified}
        report |= {"licence": None if spec.licence is None else spec.licence.name}
        typer.echo(json_module.dumps(report, indent=2))
    else:
        _show(status, spec, verified)


def _fetch(spec: "WeightsSpec") -> None:
    from unfreeze.backbones import pretrained_weights as weights_store

    try:
        weights_store.verify(weights_store.cached_path(spec), spec)
    except WeightsError:
        with progress_bar() as progress:
            weights_store.fetch_weights(spec, progress=progress)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that draws a download's progress on standard error."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Downloading weights", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _show(status: "WeightsStatus", spec: "WeightsSpec", verified: bool | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    state = f"{status.bytes:,} bytes" if status.present else "missing"
    console.print(f"backbone  {status.name}", markup=False)
    console.print(f"file      {status.path} ({state})", markup=False)
    console.print(f"found by  {status.found_by}", markup=False)
    if spec.licence is not None:
        console.print(f"licence   {spec.licence.name} ({spec.licence.url})", markup=False)
    if status.source:
        console.print(f"source    {status.source}", markup=False)
    if verified:
        what = "tensors" if spec.file is None else "file"
        console.print(f"verified  sha256 of the {what} {status.sha256}", markup=False)
    if not status.present:
        how = f"Run `{spec.fetch_command}` to download them."
        if not spec.sources:
            how = f"Download {spec.url}, then run `{spec.fetch_command}`."
        console.print(how, markup=False)
