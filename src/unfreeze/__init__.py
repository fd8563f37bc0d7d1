"""Staged transfer learning on Keras 3: freeze, train the head, unfreeze, train on.

`import unfreeze` is quick: Keras is imported when something that needs it is
first used (`__init__.pyi` lists the public names). Once Keras is there, our layers
are registered with it, so that `keras.models.load_model` opens the models that this
package writes.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from typing import Any

import lazy_loader

from unfreeze.version import __version__ as __version__

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _get(name)
    except ModuleNotFoundError as error:
        from unfreeze.backend import cure_for
        from unfreeze.errors import UnfreezeError

        cure = cure_for(error)
        if cure is None:
            raise
        raise UnfreezeError(cure) from None


def _register_layers() -> None:
    # Keras finds a saved model's own classes by registration only.
    layers = ("logmel_layer", "sample_windows_layer", "mel_windows_layer", "augment_layer")
    for module in (*layers, "clip_model"):
        importlib.import_module(f"unfreeze.audio.{module}")
    for module in ("optimizers", "read_out_layers"):
        importlib.import_module(f"unfreeze.core.{module}")


class _BehindKeras(MetaPathFinder):
    """Registers our layers as soon as Keras is imported, and no earlier."""

    _asked = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The usual specification of Keras, which registers our layers once it has run.

        It may be asked for without an import, to see whether Keras is there.
        """
        if name != "keras" or self._asked:
            return None
        self._asked = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asked = False
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: Any) -> None:
            run(module)
            sys.meta_path.remove(self)
            _register_layers()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


if sys.modules.get("keras"):
    _register_layers()
else:
    sys.meta_path.insert(0, _BehindKeras())
