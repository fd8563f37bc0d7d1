"""Reads the constants of a TFLite file, with numpy alone.

A TFLite file is one FlatBuffer: tables whose fields are found through a small list of
offsets (https://flatbuffers.dev/internals), with the schema of
tensorflow/compiler/mlir/lite/schema/schema.fbs. Only what leads from the operations of
the first graph to their constant float32 inputs is read. The runtime for such files is
larger than this package's other requirements together, and is not needed for that.

Offsets come from the file, so only a file with a pinned checksum is given to this module.
"""

import struct
from dataclasses import dataclass

import numpy as np

# Numbers of operations, `BuiltinOperator` in the schema.
ADD, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, MUL = 0, 3, 4, 9, 18

# Places of fields in their tables.
_MODEL_CODES, _MODEL_GRAPHS, _MODEL_BUFFERS = 1, 2, 4
_CODE_OLD, _CODE = 0, 3
_GRAPH_TENSORS, _GRAPH_OPERATIONS = 0, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_OPERATION_CODE, _OPERATION_INPUTS = 0, 1
_BUFFER_DATA = 0
_FLOAT32 = 0


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a graph.

    Attributes:
        code: its number, such as `CONV_2D`.
        constants: its constant float32 inputs, in order; read-only.
    """

    code: int
    constants: tuple[np.ndarray, ...]


def read_operations(data: bytes) -> list[Operation]:
    """Return the operations of a file's first graph, in the order they run.

    Args:
        data: the whole file.

    Raises:
        ValueError: it is no TFLite file.
        struct.error: an offset leads out of it.
    """
    if data[4:8] != b"TFL3":
        raise ValueError("it does not begin as a TFLite file does")
    model = _Table(data, _uint(data, 0))
    codes = [_code(table) for table in model.tables(_MODEL_CODES)]
    buffers = model.tables(_MODEL_BUFFERS)
    graph = model.tables(_MODEL_GRAPHS)[0]
    constants = [_constant(tensor, buffers) for tensor in graph.tables(_GRAPH_TENSORS)]
    operations = []
    for table in graph.tables(_GRAPH_OPERATIONS):
        # An optional input that is left out has the number -1.
        given = [int(n) for n in table.vector(_OPERATION_INPUTS, "<i4") if n >= 0]
        found = (constants[n] for n in given)
        code = codes[table.number(_OPERATION_CODE, "<I")]
        operations.append(Operation(code, tuple(x for x in found if x is not None)))
    return operations


class _Table:
    """A table of a FlatBuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def number(self, field: int, form: str) -> int:
        """A field that is a whole number; 0 where it is left out."""
        place = self._place(field)
        return 0 if place is None else int(struct.unpack_from(form, self._data, place)[0])

    def vector(self, field: int, dtype: str) -> np.ndarray:
        """A field that is a list of numbers, (n,); empty where it is left out."""
        place = self._place(field)
        if place is None:
            return np.zeros(0, dtype)
        start = place + _uint(self._data, place)
        return np.frombuffer(self._data, dtype, _uint(self._data, start), start + 4)

    def tables(self, field: int) -> "list[_Table]":
        """A field that is a list of tables."""
        place = self._place(field)
        if place is None:
            return []
        start = place + _uint(self._data, place)
        places = range(start + 4, start + 4 + 4 * _uint(self._data, start), 4)
        return [_Table(self._data, at + _uint(self._data, at)) for at in places]

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry >= self._size:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + entry)[0]
        return self._at + offset if offset else None


def _uint(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _code(table: _Table) -> int:
    # Numbers below 127 are in the older field alone.
    return max(table.number(_CODE, "<i"), table.number(_CODE_OLD, "<b"))


def _constant(tensor: _Table, buffers: list[_Table]) -> np.ndarray | None:
    """The values of a float32 tensor; None for another type, or where the graph computes it."""
    values = buffers[tensor.number(_TENSOR_BUFFER, "<I")].vector(_BUFFER_DATA, "u1")
    if tensor.number(_TENSOR_TYPE, "<b") != _FLOAT32 or not len(values):
        return None
    shape = [int(n) for n in tensor.vector(_TENSOR_SHAPE, "<i4")]
    return values.view("<f4").reshape(shape)
