"""Staged transfer learning on Keras 3: freeze, train the head, unfreeze, train on.

`import unfreeze` is quick: Keras is imported when something that needs it is
first used (`__init__.pyi` lists the public names). Once Keras is there, our layers
are registered with it, so that `keras.models.load_model` opens the models that this
package writes.
"""

import importlib
from typing import Any

import lazy_loader
import wrapt

from unfreeze.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("keras")
def _register_layers(_keras: Any) -> None:
    # Keras finds a saved model's own classes by registration only.
    layers = ("logmel_layer", "sample_windows_layer", "mel_windows_layer", "augment_layer")
    for module in (*layers, "clip_model"):
        importlib.import_module(f"unfreeze.audio.{module}")
    for module in ("optimizers", "read_out_layers"):
        importlib.import_module(f"unfreeze.core.{module}")
