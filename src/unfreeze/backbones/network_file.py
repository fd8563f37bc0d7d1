"""Run a published network as it is, from an ONNX or a TFLite file: windows in, numbers out.

ONNX Runtime and LiteRT are imported when a file is opened. A network has one input of
samples, of the shape (samples,), (batch, samples), (batch, samples, 1) or (batch, 1, samples).
Of each output that is read there are as many numbers for a window as its last axis is long:
over all other axes but that of the batch, the mean is taken. A tensor inside the network may be
read, too, as many networks are published without an output for their embedding.

Invariant: a window has the same numbers to the bit whatever windows come with it. So each
goes through the network alone; on a CPU, batches of networks of this size gain little.
"""

import hashlib
import importlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.backbones.frontend import NetworkFile, NetworkOutputs
from unfreeze.backend import standard_error_held
from unfreeze.errors import WeightsError, did_you_mean, show

ONNX, TFLITE = SUFFIXES = (".onnx", ".tflite")
_FLOATS = ("float16", "float32", "float64")
# Tensors that a message lists at most.
_LISTED = 8


@dataclass(frozen=True, eq=False)
class Opened:
    """A network that is ready to run.

    Attributes:
        run: takes the input, in the network's shape and type, and returns the values of the
            tensors that are read.
        shape: of the input; None where it is free.
        dtype: of the input, as numpy names it.
    """

    run: Callable[[np.ndarray], list[np.ndarray]]
    shape: tuple[int | None, ...]
    dtype: str


class Network:
    """A network that computes numbers for windows of samples; threads may call it at once.

    Args:
        opened: the network.
        samples: in a window.
        file: for messages.

    Attributes:
        shape: in which a window is fed.

    Raises:
        WeightsError: the network does not take such windows.
    """

    def __init__(self, opened: Opened, samples: int, file: Path) -> None:
        self._opened, self._samples, self._file = opened, samples, file
        self.shape = fed_shape(opened, samples, file)

    def each(self, window: np.ndarray) -> list[np.ndarray]:
        """The numbers of each tensor that is read, (numbers,) float32, for (samples,)."""
        fed = np.asarray(window, self._opened.dtype).reshape(self.shape)
        try:
            values = self._opened.run(fed)
        except Exception as error:  # Runtimes raise kinds of their own.
            raise WeightsError(
                f"{show(self._file)} fails on {self._samples} samples: {_reason(error)}"
            ) from error
        return [_mean_of_places(value) for value in values]

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Run the network on windows, (n, samples) float32.

        Returns:
            (n, numbers) float32, one output after the other.
        """
        return np.stack([np.concatenate(self.each(window)) for window in windows])


def _mean_of_places(value: np.ndarray) -> np.ndarray:
    rows = np.asarray(value, np.float32)
    numbers = rows.shape[-1] if rows.ndim else 1
    mean: np.ndarray = rows.reshape(-1, numbers).mean(axis=0)
    return mean


def fed_shape(opened: Opened, samples: int, file: Path) -> tuple[int, ...]:
    """The shape in which a window is fed.

    Args:
        opened: the network.
        samples: in a window.
        file: for messages.

    Raises:
        WeightsError: the network takes other windows, more than one at once, or no samples.
    """
    shape = opened.shape
    if opened.dtype not in _FLOATS:
        raise WeightsError(
            f"{show(file)} takes numbers of type {opened.dtype}, not samples from -1 to 1 of type "
            "float32: networks like this are not supported"
        )
    if not 1 <= len(shape) <= 3:
        raise _no_waveform(file, shape)
    batch, rest = (shape[:1], shape[1:]) if len(shape) > 1 else ((), shape)
    # The axis of the samples: the only one that is not 1, or the last.
    long = [axis for axis, size in enumerate(rest) if size not in (None, 1)]
    free = [axis for axis, size in enumerate(rest) if size is None]
    axis = (long or free or [len(rest) - 1])[-1]
    if len(long) > 1 or any(size not in (None, 1) for n, size in enumerate(rest) if n != axis):
        raise _no_waveform(file, shape)
    if batch and batch[0] not in (None, 1):
        raise WeightsError(
            f"{show(file)} takes {batch[0]} windows at once, always: export it with a batch of 1, "
            "or of any size"
        )
    wanted = rest[axis]
    # Of one axis, 1 stands for any length in TFLite files.
    if wanted not in (None, samples) and (wanted != 1 or batch):
        raise WeightsError(
            f"{show(file)} takes {wanted} samples at once, but the window of its YAML file "
            f"(window times sample_rate) has {samples}: correct one of the two"
        )
    return (*(1 for _ in batch), *(samples if n == axis else 1 for n in range(len(rest))))


def _no_waveform(file: Path, shape: tuple[int | None, ...]) -> WeightsError:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return WeightsError(
        f"{show(file)} takes input of the shape ({sizes}), which is no waveform: it must be "
        "(samples), (batch, samples), (batch, samples, 1) or (batch, 1, samples)"
    )


def examine_network(file: Path, name: str, outputs: Sequence[str], samples: int) -> NetworkFile:
    """Open a network, check it against what is said of it, and run it once.

    Args:
        file: ONNX or TFLite.
        name: of the backbone.
        outputs: what is read of it; empty for its only output.
        samples: in a window.

    Raises:
        WeightsError: it cannot be opened, has no such output, or takes other windows; or its
            runtime is not installed.
    """
    digest = file_digest(file)
    chosen = tuple(outputs)
    if not chosen:
        offered = _offered(file)
        if len(offered) != 1:
            raise WeightsError(
                f"{show(file)} has {len(offered)} outputs: say in its YAML file which of them are "
                f"the embedding, as in `embedding: {next(iter(offered), 'NAME')}`. It has "
                f"{_listing(offered)}"
            )
        chosen = tuple(offered)
    return _examined(file, name, chosen, samples, digest)


@lru_cache(maxsize=8)
def _examined(
    file: Path, name: str, outputs: tuple[str, ...], samples: int, digest: str
) -> NetworkFile:
    found = _network(file, outputs, samples, digest).each(np.zeros(samples, np.float32))
    return NetworkFile(name, str(file), digest, outputs, tuple(map(len, found)))


def open_network(front_end: NetworkOutputs) -> Network:
    """The network that patches are the outputs of; opened once.

    Raises:
        WeightsError: its file is gone or has changed, or its runtime is not installed.
    """
    network = front_end.network
    file = find_network(network)
    return _network(file, network.outputs, front_end.window, network.sha256)


def network_shape(front_end: NetworkOutputs) -> tuple[int, ...]:
    """The shape in which the network is fed a window.

    Raises:
        WeightsError: as `open_network`.
    """
    return open_network(front_end).shape


def find_network(network: NetworkFile) -> Path:
    """Where a network's file is, which is checked.

    Raises:
        WeightsError: it is gone, or has changed; names the file and the cure.
    """
    moved = os.environ.get(network.env)
    file = Path(moved).expanduser() if moved else Path(network.file)
    cure = f"put it back there, or set {network.env} to its path"
    if not file.is_file():
        raise WeightsError(
            f"The network {network.name} is in a file of its own, and there is none at "
            f"{show(file)}: {cure}"
        )
    found = file_digest(file)
    if found != network.sha256:
        raise WeightsError(
            f"{show(file)} is not the network {network.name} as it was (sha256 found "
            f"{found[:16]}..., expected {network.sha256[:16]}...): if you have the file as it was, "
            f"{cure}; or train again"
        )
    return file


def file_digest(file: Path) -> str:
    """The sha256 of a file's bytes; read again only where it has changed.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        state = file.stat()
        return _digest(file, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise WeightsError(f"{show(file)} cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=16)
def _digest(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _network(file: Path, outputs: tuple[str, ...], samples: int, digest: str) -> Network:
    opened = (_open_onnx if file.suffix.lower() == ONNX else _open_tflite)(file, outputs)
    return Network(opened, samples, file)


def _offered(file: Path) -> dict[str, str]:
    """The outputs of a network, each with its shape in words."""
    return _onnx_outputs(file) if file.suffix.lower() == ONNX else _tflite_outputs(file)


def described_outputs(file: Path) -> str:
    """The outputs of a network in words; empty where it cannot be opened."""
    try:
        return _listing(_offered(file))
    except WeightsError:
        return ""


def _listing(tensors: dict[str, str]) -> str:
    named = [f"{show(name)} ({shape})" for name, shape in tensors.items()]
    more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    return ", ".join(named[:_LISTED]) + more


def _sizes(shape: Sequence[Any]) -> str:
    return " x ".join(str(size) if isinstance(size, int) and size > 0 else "any" for size in shape)


def _missing(file: Path, name: str, offered: dict[str, str], known: Sequence[str]) -> WeightsError:
    hint = did_you_mean(name, [*offered, *known])
    return WeightsError(
        f"{show(file)} has no output or other tensor {show(name)!r}, which `embedding` in its YAML "
        f"file names.{hint} Its outputs are {_listing(offered)}"
    )


def _one_input(file: Path, names: Sequence[str]) -> None:
    if len(names) != 1:
        raise WeightsError(
            f"{show(file)} has {len(names)} inputs ({', '.join(map(show, names))}): only networks "
            "that take nothing but samples are supported"
        )


def _runtime(file: Path, module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise WeightsError(
            f"{show(file)} needs {package} to run, which is not installed ({error}): install it "
            f"with: pip install {package}"
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _unreadable(file: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{show(file)} cannot be opened as a network: {_reason(error)}. It may be damaged or of a "
        "newer format: copy it again, or install a newer version of its runtime"
    )


def _threads() -> int:
    # Those that this process may use; the machine may have more.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def onnx_session(file: Path, model: str | bytes) -> Any:
    """A session of ONNX Runtime on the CPU, on the cores that this process may use.

    Args:
        file: for messages.
        model: its path, or its bytes.

    Raises:
        WeightsError: it cannot be opened, or the runtime is not installed.
    """
    runtime = _runtime(file, "onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    # Waiting threads must not keep the cores busy that decode meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unreadable(file, error) from None


def _onnx_outputs(file: Path) -> dict[str, str]:
    outputs = onnx_session(file, str(file)).get_outputs()
    return {item.name: _sizes(item.shape) for item in outputs}


def _open_onnx(file: Path, outputs: tuple[str, ...]) -> Opened:
    session = onnx_session(file, str(file))
    offered = {item.name: _sizes(item.shape) for item in session.get_outputs()}
    if not set(outputs) <= offered.keys():
        session = onnx_session(file, _with_outputs(file, outputs, offered))
    inputs = session.get_inputs()
    _one_input(file, [item.name for item in inputs])
    (given,) = inputs
    shape = tuple(size if isinstance(size, int) else None for size in given.shape)
    kinds = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
    name, wanted = given.name, list(outputs)
    dtype = kinds.get(given.type, given.type.removeprefix("tensor(").removesuffix(")"))
    return Opened(lambda fed: list(session.run(wanted, {name: fed})), shape, dtype)


def _with_outputs(file: Path, outputs: Sequence[str], offered: dict[str, str]) -> bytes:
    """The network with further tensors as outputs."""
    onnx = _runtime(file, "onnx", "onnx")
    model = onnx.load(str(file))
    inside = [name for node in model.graph.node for name in node.output if name]
    for name in outputs:
        if name in offered:
            continue
        if name not in inside:
            raise _missing(file, name, offered, inside)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    serialized: bytes = model.SerializeToString()
    return serialized


def _interpreter(file: Path, everything: bool = False) -> Any:
    module = _runtime(file, "ai_edge_litert.interpreter", "ai-edge-litert")
    with warnings.catch_warnings():
        # That it is for debugging: there is no other way to read a tensor inside.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return module.Interpreter(
                str(file),
                num_threads=_threads(),
                experimental_preserve_all_tensors=everything,
            )
        except Exception as error:
            raise _unreadable(file, error) from None


def _tflite_outputs(file: Path) -> dict[str, str]:
    details = _interpreter(file).get_output_details()
    return {item["name"]: _sizes(item["shape_signature"].tolist()) for item in details}


def _open_tflite(file: Path, outputs: tuple[str, ...]) -> Opened:
    interpreter = _interpreter(file)
    offered = {item["name"]: item["index"] for item in interpreter.get_output_details()}
    if not set(outputs) <= offered.keys():
        # Slower by a third, and it keeps every tensor in memory.
        interpreter = _interpreter(file, everything=True)
        inside = {item["name"]: item["index"] for item in interpreter.get_tensor_details()}
        for name in outputs:
            if name not in inside:
                raise _missing(file, name, _tflite_outputs(file), list(inside))
        offered = {**inside, **offered}
    inputs = interpreter.get_input_details()
    _one_input(file, [item["name"] for item in inputs])
    (given,) = inputs
    place, places = given["index"], [offered[name] for name in outputs]
    shape = tuple(size if size > 0 else None for size in given["shape_signature"].tolist())
    # An interpreter is one set of tensors: one thread at a time.
    lock, allocated = threading.Lock(), list[tuple[int, ...]]()

    def run(fed: np.ndarray) -> list[np.ndarray]:
        with lock:
            if allocated != [fed.shape]:
                with standard_error_held():  # It says there which delegate it has.
                    interpreter.resize_tensor_input(place, fed.shape)
                    interpreter.allocate_tensors()
                allocated[:] = [fed.shape]
            interpreter.set_tensor(place, fed)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in places]

    return Opened(run, shape or _scalar_shape(given), np.dtype(given["dtype"]).name)


def _scalar_shape(given: dict[str, Any]) -> tuple[int | None, ...]:
    """Where a file has no signature of its shape: the shape itself."""
    return tuple(int(size) for size in given["shape"])
