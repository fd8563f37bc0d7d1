"""A trainable Keras model made of steps: the suffix of a stage, or its prefix.

`StepModel` runs steps of a flattened model on the very same layers. Nothing is
copied, so what it trains is trained in the whole model, and no layer gets an
additional call node. Its `save`, `get_layer` and similar methods act on the whole
model, so that callbacks (ModelCheckpoint) write what their user expects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from unfreeze.core.boundary import Cut
from unfreeze.core.fusing import fuse_steps
from unfreeze.core.graph import Graph, Step, run_step
from unfreeze.core.keras_internals import (
    computing_in_bfloat16,
    get_keras_mask,
    input_names,
    set_keras_mask,
    tree,
)
from unfreeze.core.standard_error import Errors


@dataclass(frozen=True, eq=False)
class Program:
    """What a `StepModel` runs.

    Attributes:
        graph: the whole model, for shapes, dtypes and the outputs' structure.
        inputs: numbers of the tensors that are fed, in order.
        masked: those of `inputs` that have a mask; the masks are fed after them.
        frozen: steps run first, in inference mode, without gradients.
        steps: the other steps, in the mode of the call.
        forced: ids of frozen steps that run in training mode anyway
            (augmentation, when views are made).
        outputs: numbers of the tensors to return.
        packed: whether outputs get the model's own structure, or stay a list.
        emit_masks: positions in `outputs` whose masks are returned, after them.
        bfloat16: whether frozen layers that compute in float32 do so in bfloat16.
    """

    graph: Graph
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frozen: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    masked: tuple[int, ...] = ()
    forced: frozenset[int] = frozenset()
    packed: bool = True
    emit_masks: tuple[int, ...] = ()
    bfloat16: bool = False
    last_use: dict[int, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        kept = set(self.outputs)
        release: dict[int, tuple[int, ...]] = {}
        seen: set[int] = set()
        for step in reversed((*self.frozen, *self.steps)):
            touched = {*step.inputs, *step.outputs}
            release[id(step)] = tuple(touched - seen - kept)
            seen |= touched
        object.__setattr__(self, "last_use", release)


@keras.saving.register_keras_serializable(package="unfreeze")
class StepModel(keras.Model):
    """Runs a `Program`; trains like any Keras model.

    Args:
        program: what to run.
        owner: the whole model, on which `save` and similar methods act.
    """

    def __init__(self, program: Program, owner: keras.Model, name: str | None = None) -> None:
        # The owner's policy decides on loss scaling. Inputs get the frontier's own
        # dtypes in `_feed`; a functional model does not round its inputs either.
        super().__init__(name=name or owner.name, dtype=owner.dtype_policy, autocast=False)
        layers = [s.operation for s in (*program.frozen, *program.steps) if s.is_layer]
        self.step_layers = list({id(layer): layer for layer in layers}.values())
        # Wrapped in an object that no backend tracks: attributes that are lists
        # or models would become part of this model's weights and checkpoints.
        self._source = _Source(program, owner)
        if hasattr(owner, "output_names"):
            self.output_names = owner.output_names
        self.built = True

    @property
    def program(self) -> Program:
        """What this model runs."""
        return self._source.program

    @property
    def owner(self) -> keras.Model:
        """The whole model that this one is a part of."""
        return self._source.owner

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Run all steps on the fed tensors (frontier and passed inputs, then masks)."""
        program = self.program
        if isinstance(inputs, dict):
            # Datasets may give inputs by name, in any order and with more besides.
            inputs = [inputs[name] for name in input_names(self.owner)]
        values = self._feed(tree.flatten(inputs))
        with computing_in_bfloat16(self.step_layers if program.bfloat16 else ()):
            for step in program.frozen:
                run_step(step, values, id(step) in program.forced)
                _forget(values, program.last_use[id(step)])
        if program.frozen and program.steps:
            _stop_gradients(values, program)
        for step in program.steps:
            run_step(step, values, training)
            _forget(values, program.last_use[id(step)])
        flat = [values[index] for index in program.outputs]
        if program.packed:
            return program.graph.pack(flat)
        return flat + [get_keras_mask(flat[position]) for position in program.emit_masks]

    def _feed(self, flat: Sequence[Any]) -> dict[int, Any]:
        program, values = self.program, {}
        model_inputs = set(program.graph.inputs)
        for index, value in zip(program.inputs, flat, strict=False):
            tensor = keras.ops.convert_to_tensor(value)
            if index in model_inputs:
                tensor = _as_rank(tensor, program.graph.shapes[index])
            values[index] = keras.ops.cast(tensor, program.graph.dtypes[index])
        for index, mask in zip(program.masked, flat[len(program.inputs) :], strict=True):
            set_keras_mask(values[index], keras.ops.cast(mask, "bool"))
        return values

    @property
    def errors(self) -> Errors | None:
        """Standard errors of what is validated; None where nobody wants to know."""
        return self._source.errors

    def tell_errors(self, monitor: str) -> Errors:
        """Compute the standard errors of what a schedule's monitor may mean, from now on."""
        errors = Errors(monitor, len(self.program.outputs))
        self._source.errors = errors
        return errors

    @property
    def metrics(self) -> list[Any]:
        """Keras' own, and the moments behind the standard errors: Keras resets them all."""
        return [*super().metrics, *(self.errors.moments if self.errors is not None else ())]

    def get_metrics_result(self) -> dict[str, Any]:
        """Without the moments, which are no scores."""
        hidden = [] if self.errors is None else [moments.name for moments in self.errors.moments]
        found = super().get_metrics_result()
        return {name: value for name, value in found.items() if name not in hidden}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """As Keras does; in validation each sample's share is noted, too."""
        whole, classes = super().compute_loss, self._source.classes

        def loss() -> Any:
            found = whole(x, y, y_pred, sample_weight, training=training)
            if not classes:
                return found
            (labels,) = tree.flatten(y)
            outside = keras.ops.any((labels < 0) | (labels >= classes))
            return keras.ops.where(outside, float("nan"), found)

        if training or self.errors is None:
            return loss()
        return self.errors.validated(self, y, y_pred, sample_weight, loss)

    def watch_classes(self, count: int) -> None:
        """Make the loss NaN where a label is no class of so many; 0 watches nothing."""
        self._source.classes = count

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The whole model's layer of that name or index."""
        return self.owner.get_layer(name=name, index=index)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The whole model's outputs, so that callbacks can give its inputs in a cached stage, too.

        For those of what the stage itself is fed, call `keras.Model.predict(model, fed)`.
        """
        return self.owner.predict(x, *args, **kwargs)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the whole model."""
        return self.owner.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the whole model's weights."""
        return self.owner.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the whole model's weights."""
        return self.owner.load_weights(filepath, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Export the whole model."""
        return self.owner.export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The whole model's configuration."""
        return dict(self.owner.get_config())

    def summary(self, *args: Any, **kwargs: Any) -> Any:
        """Print the whole model's summary."""
        return self.owner.summary(*args, **kwargs)


@dataclass(eq=False)
class _Source:
    program: Program
    owner: keras.Model
    errors: Errors | None = None
    classes: int = 0


def prefix_model(
    cut: Cut,
    owner: keras.Model,
    emit_masks: tuple[int, ...] = (),
    fused: bool = True,
    bfloat16: bool = False,
) -> StepModel:
    """The frozen prefix: all model inputs in, a list of frontier tensors (and masks) out."""
    program = Program(
        graph=cut.graph,
        inputs=cut.graph.inputs,
        outputs=cut.frontier,
        frozen=fuse_steps(cut.prefix, cut, frozenset()) if fused else cut.prefix,
        forced=cut.augmentation,
        packed=False,
        emit_masks=emit_masks,
        bfloat16=bfloat16,
    )
    return StepModel(program, owner, name=f"{owner.name}_prefix")


def suffix_model(
    cut: Cut,
    owner: keras.Model,
    updating: frozenset[int],
    masked: tuple[int, ...] = (),
    fused: bool = True,
) -> StepModel:
    """The suffix alone: frontier tensors, passed inputs, then masks of `masked` in.

    `updating` are ids of variables that layers may update by themselves.
    """
    program = Program(
        graph=cut.graph,
        inputs=(*cut.frontier, *cut.passed),
        outputs=cut.graph.outputs,
        steps=fuse_steps(cut.suffix, cut, updating) if fused else cut.suffix,
        masked=masked,
    )
    return StepModel(program, owner)


def joined_model(
    cut: Cut, owner: keras.Model, updating: frozenset[int], fused: bool = True
) -> StepModel:
    """Prefix (in inference mode, no gradients) and suffix in one, for uncached stages."""
    program = Program(
        graph=cut.graph,
        inputs=cut.graph.inputs,
        outputs=cut.graph.outputs,
        frozen=fuse_steps(cut.prefix, cut, frozenset()) if fused else cut.prefix,
        steps=fuse_steps(cut.suffix, cut, updating) if fused else cut.suffix,
        forced=cut.augmentation,
    )
    return StepModel(program, owner)


def masks_of(prefix: StepModel, batch: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the frontier tensors that carry a mask, found by running a batch."""
    outputs = prefix(list(batch), training=False)
    return tuple(i for i, x in enumerate(outputs) if get_keras_mask(x) is not None)


def _as_rank(tensor: Any, shape: tuple[int | None, ...]) -> Any:
    """Add or drop a last axis of size one, as Keras does with a model's inputs."""
    rank = len(tensor.shape)
    if rank == len(shape) - 1 and shape[-1] == 1:
        return keras.ops.expand_dims(tensor, -1)
    if rank == len(shape) + 1 and tensor.shape[-1] == 1:
        return keras.ops.squeeze(tensor, -1)
    return tensor


def _forget(values: dict[int, Any], indices: tuple[int, ...]) -> None:
    for index in indices:
        values.pop(index, None)


def _stop_gradients(values: dict[int, Any], program: Program) -> None:
    made = {index for step in program.frozen for index in step.outputs}
    for index in made & values.keys():
        tensor = values[index]
        if _is_float(tensor.dtype):
            mask = get_keras_mask(tensor)
            values[index] = keras.ops.stop_gradient(tensor)
            if mask is not None:
                set_keras_mask(values[index], mask)


def _is_float(dtype: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(dtype)
