"""Run folders with a light form that is written by hand, so that no TensorFlow is needed."""

import json
import shutil
import textwrap

import numpy as np

from unfreeze.audio.clip_parts import ClipParts, OwnPart
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.pipeline import light_form, run_folder

LABELS = ("high", "low", "noise")
OWN = ("up", "down")
THRESHOLDS = {"high": 0.6, "low": 0.55, "noise": 0.7}
#: What a light machine does not have; and what takes long to import and is not needed.
ABSENT = ("keras", "tensorflow", "torch", "jax", "sklearn", "matplotlib", "h5py", "PIL")
UNUSED = ("scipy.signal", "scipy.stats", "scipy.optimize", "asyncio")


def write_light(file, kernel, bias, settings, own=None):
    """Write a light form: the mean over time, a dense layer, softmax; `own` adds a sigmoid."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"probabilities": ("Softmax", kernel, bias)}
    if own is not None:
        kinds["published"] = ("Sigmoid", *own)
    nodes = [helper.make_node("ReduceMean", ["patches"], ["means"], axes=[1], keepdims=0)]
    outputs, stored = [], []
    for name, (kind, weights, start) in kinds.items():
        nodes += [
            helper.make_node("MatMul", ["means", f"{name}_kernel"], [f"{name}_product"]),
            helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_logits"]),
            helper.make_node(kind, [f"{name}_logits"], [name]),
        ]
        stored += [
            numpy_helper.from_array(np.asarray(values, np.float32), f"{name}_{what}")
            for what, values in (("kernel", weights), ("bias", start))
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(start)]))
    given = helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["patches", 96, 64])
    graph = helper.make_graph(nodes, "light", [given], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {light_form.SETTINGS: json.dumps(settings)})
    onnx.save(model, str(file))


def parts(own=False, **changes):
    """The parts of a classifier of toy sounds, without what computes its scores."""
    published = OwnPart(None, OWN, "own", "Toy") if own else None
    given = ClipParts(None, FrontEnd(), LABELS, False, "", published)
    return ClipParts(**{**vars(given), **changes})


def write_run(folder, model, layer, own=None):
    """A finished run: a `.keras` file, and its light form.

    Args:
        folder: of the run; made.
        model: the `.keras` file of a classifier.
        layer: its kernel and bias.
        own: likewise, for further classes.
    """
    folder.mkdir(parents=True)
    shutil.copy(model, folder / run_folder.MODEL)
    run_folder.write_config(folder, {"labels": list(LABELS)})
    run_folder.write_scores(
        folder, {"test": None, "validation": None, "background": True, "thresholds": THRESHOLDS}
    )
    settings = light_form.settings_of(parts(own is not None), folder / run_folder.MODEL)
    write_light(folder / light_form.FILE, *layer, settings, own)
    return folder


def on_a_light_machine(code):
    """A program in which what a light machine lacks cannot be imported."""
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n"
    return hidden + textwrap.dedent(code)
