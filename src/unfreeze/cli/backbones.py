"""`unfreeze backbones`: the pretrained networks that classifiers can be trained from."""

import json as json_module
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from unfreeze.cli.arguments import Json

if TYPE_CHECKING:
    from unfreeze.backbones.registry import Backbone


def backbones(json: Json = False) -> None:
    """List the pretrained networks: what they hear, their licence, and where weights come from."""
    # Imported here: `unfreeze --help` must not wait for numpy.
    from unfreeze.backbones.registry import BACKBONES

    rows = [_row(backbone) for backbone in BACKBONES.values()]
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        for line in _lines(row):
            console.print(line, markup=False)
        console.print()
    console.print("Train from one with `unfreeze train DATA --backbone NAME`.", markup=False)


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
        "weights_bytes": spec.size,
        "weights_sources": [source.label for source in spec.sources],
        "weights_present": found.present,
        "weights_path": str(found.path),
        "licence": "" if licence is None else licence.name,
        "licence_url": "" if licence is None else licence.url,
        "licence_terms": [] if licence is None else list(licence.terms),
        "licence_must_be_accepted": licence is not None and licence.must_accept,
        "licence_accepted": is_accepted(spec.name, licence, cache_folder()),
    }


def _lines(row: dict[str, Any]) -> list[str]:
    asked = ""
    if row["licence_must_be_accepted"]:
        done = row["licence_accepted"]
        asked = "; you accepted it" if done else "; accept it with --accept-licence"
    terms = f": {'; '.join(row['licence_terms'])}" if row["licence_terms"] else ""
    state = "on this machine" if row["weights_present"] else "not on this machine yet"
    return [
        f"{row['name']}: {row['description']}",
        f"  hears    {row['hears']}; {row['low_hz']:g} to {row['high_hz']:g} Hz, "
        f"{row['patch_seconds']:g} s at once, every {row['hop_seconds']:g} s",
        f"  licence  {row['licence']}{terms}{asked}",
        f"  weights  {row['weights_bytes'] / 1e6:.0f} MB, {state}; from "
        f"{', or '.join(row['weights_sources'])}",
    ]
