"""The backend that Keras runs on: which one, its import, and its out-of-memory errors.

The user's choice comes first, then the first backend that is installed. Without any, saved
classifiers run on ONNX Runtime, for which Keras is not imported (`unfreeze.pipeline.light_form`).
"""

import importlib
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unfreeze.errors import UnfreezeError

BACKENDS = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}
#: Which runtime computes the scores of saved classifiers, where the user says so.
RUNTIME = "UNFREEZE_RUNTIME"
KERAS, ONNX = "keras", "onnx"
# What the extra of each backend installs with it, so that whoever has a backend from elsewhere
# learns at once what is missing.
_BESIDE = ("keras", "h5py", "matplotlib", "PIL", "sklearn")
# What pictures need, by module, as packages.
_DRAWING = {"matplotlib": "matplotlib", "PIL": "pillow"}
# What serves pages, by module.
_SERVING = ("fastapi", "uvicorn", "python_multipart")


def has_module(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def need_for_pictures() -> None:
    """Refuse what draws pictures where the packages for it are missing.

    Raises:
        UnfreezeError: names the command that installs them.
    """
    missing = [name for module, name in _DRAWING.items() if not has_module(module)]
    if missing:
        raise UnfreezeError(
            f"--out draws pictures, which needs {' and '.join(missing)}: install with: "
            f"pip install {' '.join(missing)}"
        )


def need_for_pages(what: str) -> None:
    """Refuse what serves a page where the packages for it are missing.

    Args:
        what: that needs them, such as "The page".

    Raises:
        UnfreezeError: names the command that installs them.
    """
    missing = [name for name in _SERVING if not has_module(name)]
    if missing:
        raise UnfreezeError(
            f"{what} needs {', '.join(missing)}. Install with: pip install 'unfreeze[serve]'"
        )


def check_backend() -> None:
    """Refuse, before any work, what needs Keras where it cannot run.

    Raises:
        UnfreezeError: as `choose_backend`.
    """
    if sys.modules.get("keras") is None:
        choose_backend()


def cure_for(error: ImportError) -> str | None:
    """What to install where a package of an extra is missing; None where it is none of these."""
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or missing not in (*_BESIDE, *BACKENDS):
        return None
    extra = missing if missing in BACKENDS else "tensorflow"
    return (
        f"This needs {_DRAWING.get(missing, missing)}, which is not installed. "
        f"Install it with: pip install 'unfreeze[{extra}]'"
    )


def choose_backend() -> str:
    """Choose the backend before Keras is imported for the first time.

    `KERAS_BACKEND` decides if it is set, then Keras' own configuration file if it names one
    that is installed, then the first of TensorFlow, PyTorch and JAX that is installed.

    Returns:
        Its name, also put into `KERAS_BACKEND`.

    Raises:
        UnfreezeError: no backend is installed, or the chosen one is not, or what is needed
            beside it; the message names the command that installs it.
    """
    chosen = os.environ.get("KERAS_BACKEND") or _configured()
    if chosen is None:
        installed = _installed()
        if not installed:
            raise UnfreezeError(
                "This needs Keras on a backend, and none is installed. "
                "Install one with: pip install 'unfreeze[tensorflow]'"
            )
        chosen = installed[0]
    elif chosen in BACKENDS and not has_module(BACKENDS[chosen]):
        raise UnfreezeError(
            f"KERAS_BACKEND is {chosen}, which is not installed. "
            f"Install it with: pip install 'unfreeze[{chosen}]'"
        )
    missing = [name for name in _BESIDE if not has_module(name)]
    if missing:
        extra = chosen if chosen in BACKENDS else "train"
        raise UnfreezeError(
            f"Besides {chosen} this needs {' and '.join(missing)}: not installed. "
            f"Install it with: pip install 'unfreeze[{extra}]'"
        )
    os.environ["KERAS_BACKEND"] = chosen
    return chosen


def choose_runtime() -> str:
    """The runtime of saved classifiers: `KERAS` where it has a backend, else `ONNX`.

    The environment variable `UNFREEZE_RUNTIME` decides if it is set.

    Raises:
        UnfreezeError: it is set to anything else.
    """
    wanted = os.environ.get(RUNTIME)
    if wanted:
        if wanted not in (KERAS, ONNX):
            raise UnfreezeError(f"{RUNTIME} is {wanted}: set it to {KERAS} or {ONNX}, or unset it")
        return wanted
    others = os.environ.get("KERAS_BACKEND", "") not in ("", *BACKENDS)
    return KERAS if others or _installed() else ONNX


def _installed() -> list[str]:
    return [name for name, module in BACKENDS.items() if has_module(module)]


def _configured() -> str | None:
    """The backend in Keras' own file, if it can be used.

    Keras writes that file itself, with TensorFlow in it, whether that is installed or not.
    """
    try:
        named = json.loads(_keras_config().read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = isinstance(named, str) and (named not in BACKENDS or has_module(BACKENDS[named]))
    return named if usable else None


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
