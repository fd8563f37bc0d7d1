"""`unfreeze backbones`: the pretrained networks that classifiers can be trained from."""

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from unfreeze.cli.arguments import Json

if TYPE_CHECKING:
    from unfreeze.backbones.registry import Backbone


def backbones(
    card: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file that describes a network of your own, or the model beside it: checks "
            "both, and shows this network alone."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the pretrained networks: what they hear, their licence, and where weights come from."""
    # Imported here: `unfreeze --help` must not wait for numpy.
    from unfreeze.backbones.registry import BACKBONES, get_backbone

    shown = list(BACKBONES.values()) if card is None else [get_backbone(card)]
    if card is not None and not shown[0].is_frozen:
        from unfreeze.backend import import_keras

        import_keras()
        # Says what is wrong with the model; a frozen file was opened already.
        shown[0].build()
    rows = [_row(backbone) for backbone in shown]
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        for line in _lines(row):
            console.print(line, markup=False)
        console.print()
    if card is None:
        console.print(
            "A network of your own (ONNX, TFLite, Keras) is described in a YAML file: see "
            "docs/backbones.md.",
            markup=False,
        )
    name = "NAME" if card is None else card
    more = " --schedule probe" if any(backbone.is_frozen for backbone in shown) else ""
    console.print(
        f"Train from {'one' if card is None else 'it'} with `unfreeze train DATA --out RUN "
        f"--backbone {name}{more}`.",
        markup=False,
    )


def _row(backbone: "Backbone") -> dict[str, Any]:
    from unfreeze.backbones.licence import is_accepted
    from unfreeze.backbones.pretrained_weights import cache_folder, status

    front, spec, licence = backbone.front_end, backbone.weights, backbone.licence
    found = status(spec)
    return {
        "name": backbone.name,
        "description": backbone.description,
        "hears": backbone.hears,
        "sample_rate": front.sample_rate,
        "patch_seconds": front.patch_seconds,
        "hop_seconds": front.steps * front.step / front.sample_rate,
        "low_hz": front.low_hz,
        "high_hz": front.high_hz,
        "embedding_size": backbone.embedding_size,
        "model": None if backbone.card is None else backbone.card.model,
        "frozen": backbone.is_frozen,
        "outputs": _outputs(backbone),
        "weights_bytes": spec.size,
        "weights_sources": [source.label for source in spec.sources],
        "weights_url": spec.url,
        "weights_present": found.present,
        "weights_path": str(found.path),
        "licence": "" if licence is None else licence.name,
        "licence_url": "" if licence is None else licence.url,
        "licence_terms": [] if licence is None else list(licence.terms),
        "licence_must_be_accepted": licence is not None and licence.must_accept,
        "licence_accepted": is_accepted(spec.name, licence, cache_folder()),
    }


def _outputs(backbone: "Backbone") -> dict[str, int]:
    """Of a network in a file of its own, the numbers of each output that is read."""
    from unfreeze.backbones.frontend import NetworkOutputs

    front = backbone.front_end
    if not isinstance(front, NetworkOutputs):
        return {}
    return dict(zip(front.network.outputs, front.network.sizes, strict=True))


def _lines(row: dict[str, Any]) -> list[str]:
    asked = ""
    if row["licence_must_be_accepted"]:
        done = row["licence_accepted"]
        asked = "; you accepted it" if done else "; accept it with --accept-licence"
    terms = f": {'; '.join(row['licence_terms'])}" if row["licence_terms"] else ""
    state = "on this machine" if row["weights_present"] else "not on this machine yet"
    hears = (
        f"{row['hears']}; {row['low_hz']:g} to {row['high_hz']:g} Hz, "
        f"{row['patch_seconds']:g} s at once, every {row['hop_seconds']:g} s"
    )
    if row["model"] is not None:
        outputs = ", ".join(f"{name} ({size})" for name, size in row["outputs"].items())
        return [
            f"{row['name']}: {row['description']}",
            f"  hears    {hears}",
            f"  licence  {row['licence'] or 'its card names none'}{terms}{asked}",
            f"  model    {row['model']}" + (f", frozen; {outputs}" if outputs else ""),
        ]
    sources = ", or ".join(row["weights_sources"]) or (
        f"{row['weights_url']}, which you download yourself and give with --weights"
    )
    return [
        f"{row['name']}: {row['description']}",
        f"  hears    {hears}",
        f"  licence  {row['licence']}{terms}{asked}",
        f"  weights  {row['weights_bytes'] / 1e6:.0f} MB, {state}; from {sources}",
    ]
