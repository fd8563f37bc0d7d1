"""SavedModel: the frozen graph with one signature; the settings are an asset in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unfreeze.export.program import FrozenGraph, Runner, save

SETTINGS = Path("assets") / "unfreeze.json"


def write(graph: FrozenGraph, path: Path, quantize: str | None, clips: list[np.ndarray]) -> None:
    """Write the folder `path`."""
    module = tf.Module()
    note = path.with_name(SETTINGS.name)
    note.write_text("{}", encoding="utf-8")
    try:
        module.settings = tf.saved_model.Asset(str(note))
        save(graph, str(path), module)
    finally:
        note.unlink()


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Put labels and all other settings into the asset."""
    text = json.dumps(settings, ensure_ascii=False, indent=2)
    (path / SETTINGS).write_text(text, encoding="utf-8")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that `write_settings` wrote."""
    return dict(json.loads((path / SETTINGS).read_text(encoding="utf-8")))


def load(path: Path) -> Runner:
    """Load with TensorFlow."""
    model = tf.saved_model.load(str(path))
    serve = model.signatures["serving_default"]

    def run(waveform: np.ndarray) -> dict[str, np.ndarray]:
        given = serve(waveform=tf.constant(waveform))
        return {name: value.numpy() for name, value in given.items()}

    run.model = model  # type: ignore[attr-defined]  # keeps what the signature runs alive
    return run
