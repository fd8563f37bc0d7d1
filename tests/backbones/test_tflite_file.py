"""A TFLite file's operations and constants, read without its runtime."""

import struct

import numpy as np
import pytest

from unfreeze.backbones.tflite_file import ADD, CONV_2D, MUL, read_operations

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
BIAS = np.array([1.5, -2.0], np.float32)


def written() -> bytes:
    """A file whose operations are a convolution, an addition and a multiplication."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.buffers = [schema.BufferT()]
    graph.tensors = []

    def tensor(values=None, shape=(1,), kind=schema.TensorType.FLOAT32):
        made, buffer = schema.TensorT(), schema.BufferT()
        made.type, made.buffer = kind, 0
        made.shape = np.array(shape if values is None else values.shape, np.int32)
        if values is not None:
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    whole = tensor(np.array([3], np.int32), kind=schema.TensorType.INT32)
    given = tensor(shape=(1, 8, 8, 2))
    kernel, bias, scalar = tensor(KERNEL), tensor(BIAS), tensor(np.array(0.5, np.float32))
    model.operatorCodes, graph.operators = [], []
    # Numbers above 126 are in a newer field alone; those below may be in the older one alone.
    for number, (old, new, inputs) in enumerate(
        [
            (CONV_2D, CONV_2D, [given, kernel, bias]),
            (127, 131, [given, -1, scalar]),
            (MUL, 0, [whole, scalar]),
            (ADD, ADD, [given, given]),
        ]
    ):
        code, step = schema.OperatorCodeT(), schema.OperatorT()
        code.deprecatedBuiltinCode, code.builtinCode = old, new
        step.opcodeIndex, step.inputs = number, np.array(inputs, np.int32)
        step.outputs = np.array([given], np.int32)
        model.operatorCodes.append(code)
        graph.operators.append(step)
    graph.inputs = graph.outputs = np.array([given], np.int32)
    model.subgraphs, model.version = [graph], 3
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_operations_come_in_order_with_their_float_constants():
    steps = read_operations(written())
    assert [step.code for step in steps] == [CONV_2D, 131, MUL, ADD]
    assert [[c.shape for c in step.constants] for step in steps] == [
        [(2, 3, 2, 2), (2,)],
        [()],
        [()],
        [],
    ]
    np.testing.assert_array_equal(steps[0].constants[0], KERNEL)
    np.testing.assert_array_equal(steps[0].constants[1], BIAS)


def test_another_file_is_refused():
    with pytest.raises(ValueError, match="TFLite"):
        read_operations(b"PK\x03\x04" + bytes(100))
    with pytest.raises(struct.error):
        read_operations(written()[:60])
