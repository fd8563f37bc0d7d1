"""Which backend Keras runs on: the user's choice, or else one that is installed."""

import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unfreeze.errors import UnfreezeError

BACKENDS = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}


def choose_backend() -> str:
    """Settle the backend before Keras is imported for the first time.

    `KERAS_BACKEND` or Keras' own configuration file decide where they are set.
    Otherwise the first of TensorFlow, PyTorch and JAX that is installed.

    Returns:
        Its name, also put into `KERAS_BACKEND`.

    Raises:
        UnfreezeError: none is installed, or the chosen one is not; names the
            command that installs one.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen is None and _keras_config().is_file():
        return "as configured"
    if chosen is None:
        installed = [n for n, module in BACKENDS.items() if importlib.util.find_spec(module)]
        if not installed:
            raise UnfreezeError(
                "Keras needs a backend and none is installed. "
                "Install one with: pip install 'unfreeze[tensorflow]'"
            )
        chosen = installed[0]
        os.environ["KERAS_BACKEND"] = chosen
    elif chosen in BACKENDS and not importlib.util.find_spec(BACKENDS[chosen]):
        raise UnfreezeError(
            f"KERAS_BACKEND is {chosen}, which is not installed. "
            f"Install it with: pip install 'unfreeze[{chosen}]'"
        )
    return chosen


def import_keras() -> None:
    """Import Keras on the chosen backend without the backend's own start-up messages.

    TensorFlow and JAX write about drivers that are not there straight to the
    process' standard error, where Python cannot filter them. Should the import
    fail, all that was written is shown.

    Raises:
        UnfreezeError: as `choose_backend`.
    """
    choose_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of each new shape that a function is compiled for; ours are few.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with standard_error_held():
        keras = importlib.import_module("keras")
        # The first tensor makes the backend look for devices, and complain.
        keras.ops.zeros((1,))


@contextmanager
def standard_error_held() -> Iterator[None]:
    """Keep what the block's code writes to standard error, and show it only if the block fails.

    For libraries that write straight to the process' standard error.
    """
    with tempfile.TemporaryFile() as sink:
        try:
            with _standard_error_to(sink.fileno()):
                yield
        except BaseException:
            sink.seek(0)
            sys.stderr.write(sink.read().decode("utf-8", "replace"))
            raise


@contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _keras_config() -> Path:
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras.json"
