"""The export formats by name: what each needs and supports. Plain data, quick to import."""

from collections.abc import Mapping
from dataclasses import dataclass

from unfreeze.backend import has_module
from unfreeze.errors import ExportError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A file format and the packages around it.

    Attributes:
        name: its name on the command line, and of the package's extra to install.
        title: its usual name.
        ending: suffix of the file; "" if the export is a folder.
        writers: modules needed for writing and checking.
        quantize: kinds of quantization that it supports, with the modules each needs.
        runtime: the runtime that loads the file in the check after writing.
    """

    name: str
    title: str
    ending: str
    writers: tuple[str, ...]
    quantize: Mapping[str, tuple[str, ...]]
    runtime: str

    @property
    def is_folder(self) -> bool:
        """Whether the export is a folder of files."""
        return not self.ending


_ONNX = ("tf2onnx", "onnx", "onnxruntime")
FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format(
            "litert",
            "LiteRT (TensorFlow Lite)",
            ".tflite",
            ("ai_edge_litert",),
            {"float16": (), "int8": ("ai_edge_quantizer",)},
            "ai-edge-litert",
        ),
        Format("onnx", "ONNX", ".onnx", _ONNX, {"float16": (), "int8": ()}, "onnxruntime"),
        Format(
            "openvino",
            "OpenVINO IR",
            ".xml",
            ("openvino",),
            {"float16": (), "int8": _ONNX},
            "openvino",
        ),
        Format("saved_model", "TensorFlow SavedModel", "", (), {}, "tensorflow"),
        Format(
            "tfjs",
            "TensorFlow.js graph model",
            "",
            (),
            {"float16": (), "int8": ()},
            "tensorflow, on what is read back from the files",
        ),
    )
}


def get_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        ExportError: there is no such format; the message lists the known ones.
    """
    if name in FORMATS:
        return FORMATS[name]
    hint = did_you_mean(name, FORMATS)
    raise ExportError(f"There is no export format {name!r}; known: {', '.join(FORMATS)}.{hint}")


def check_request(form: Format, quantize: str | None, length: int | None) -> None:
    """Refuse an export that cannot be made, before anything slow.

    Args:
        form: the format.
        quantize: "float16", "int8" or None.
        length: samples of the fixed input, or None for any length.

    Raises:
        ExportError: the format does not support this quantization, the length is out
            of range, or a package is missing; the message says how to install it.
    """
    if quantize is not None and quantize not in form.quantize:
        has = f"it supports {' and '.join(form.quantize)}" if form.quantize else "it supports none"
        others = [item.name for item in FORMATS.values() if quantize in item.quantize]
        cure = f"; use {', '.join(others)} for it" if others else ""
        raise ExportError(f"{form.title} cannot be quantized to {quantize!r}: {has}{cure}")
    if length is not None and length < 1:
        raise ExportError(f"A fixed input must have at least 1 sample, not {length}")
    if not has_module("tensorflow"):
        raise ExportError(
            "Exports need TensorFlow, which is not installed. "
            f'Install it with: pip install "unfreeze[{_extra(form)}]"'
        )
    missing = missing_modules(form, quantize)
    if missing:
        what = f"{form.title} in {quantize}" if quantize else form.title
        raise ExportError(
            f"An export to {what} needs {', '.join(missing)}. "
            f'Install what is missing with: pip install "unfreeze[{form.name}]"'
        )


def missing_modules(form: Format, quantize: str | None = None) -> list[str]:
    """The modules that an export needs beside TensorFlow, and that are not installed."""
    needed = (*form.writers, *(form.quantize[quantize] if quantize else ()))
    return [module for module in needed if not has_module(module)]


def _extra(form: Format) -> str:
    # The formats that need nothing but TensorFlow have no extra of their own.
    return form.name if form.writers else "tensorflow"
