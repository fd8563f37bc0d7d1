"""The backend that Keras runs on: which one, its import, and its out-of-memory errors.

The user's choice comes first, then the first backend that is installed.
"""

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
    """Choose the backend before Keras is imported for the first time.

    `KERAS_BACKEND` decides if it is set, then Keras' own configuration file,
    then the first of TensorFlow, PyTorch and JAX that is installed.

    Returns:
        Its name, also put into `KERAS_BACKEND`.

    Raises:
        UnfreezeError: no backend is installed, or the chosen one is not; the
            message names the command that installs it.
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

    TensorFlow and JAX write about missing drivers straight to the process'
    standard error, where Python cannot filter them. If the import fails,
    everything that was written is shown.

    Raises:
        UnfreezeError: as `choose_backend`.
    """
    choose_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow warns of each new shape that a function is compiled for; ours are few.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with standard_error_held():
        keras = importlib.import_module("keras")
        # The first tensor makes the backend look for devices and warn about them.
        keras.ops.zeros((1,))


@contextmanager
def standard_error_held() -> Iterator[None]:
    """Hold back what the block writes to standard error; show it only if the block fails.

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


# TensorFlow and JAX name the condition; PyTorch passes on its allocators' messages.
_WORDS = ("RESOURCE_EXHAUSTED", "can't allocate memory", "out of memory", "OOM when allocating")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
