"""The standard error of a stage's validation loss, or of a metric that is a mean over samples.

Whether a later stage is worse than an earlier one, or only looks so on these validation
samples, cannot be told without it. It comes from the sums and products of the samples'
losses that the validation pass computes anyway: no second pass, no second compiled
function. Samples count as independent of each other.

For sample i let a be its share of the loss, times its weight, and c its weight. The loss is
r = sum(a) / sum(c) up to a factor that is the same for all stages, and its error follows from
the residuals z = a - r c (a ratio estimate: Cochran, "Sampling Techniques", 1977, 6.3).
Without weights this is the standard deviation over the square root of the count.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from unfreeze.core.keras_internals import Share, each_loss, mean_of_samples
from unfreeze.core.schedule import AUTO

# What the monitor "auto" may mean among the metrics that Keras computes.
_ACCURACY = "accuracy"


class Moments(keras.metrics.Metric):
    """Sums and products of what samples add to a mean, over one validation pass.

    Args:
        name: of the mean in the log, without `val_`.
        terms: how many means are added up: the outputs of a model, for its loss.
    """

    def __init__(self, name: str, terms: int = 1) -> None:
        super().__init__(name=f"{name}_moments", dtype="float32")
        self.of, self.terms = name, terms

        def zeros(shape: tuple[int, ...], what: str) -> Any:
            return self.add_variable(shape, "zeros", dtype="float32", name=what)

        # Values are summed less the first batch's mean: their squares would lose digits.
        self.shifts = zeros((terms,), "shifts")
        self.sums = zeros((2 * terms,), "sums")
        self.products = zeros((2 * terms, 2 * terms), "products")
        self.samples, self.weighted = zeros((), "samples"), zeros((), "weighted")

    def update_state(self, shares: Sequence[Share]) -> None:
        """Add a batch.

        Args:
            shares: of each term; none, or more than there are terms, where samples have no
                values of their own.
        """
        if not 0 < len(shares) <= self.terms:
            return
        columns = [ops.cast(column, "float32") for share in shares for column in share]
        columns += [ops.zeros_like(columns[0])] * (2 * (self.terms - len(shares)))
        values, weights = (ops.stack(columns[start::2], axis=1) for start in (0, 1))
        means = ops.divide_no_nan(ops.sum(values, axis=0), ops.sum(weights, axis=0))
        begun = ops.convert_to_tensor(self.samples) > 0
        self.shifts.assign(ops.where(begun, ops.convert_to_tensor(self.shifts), means))
        shifted = values - ops.convert_to_tensor(self.shifts) * weights
        rows = ops.concatenate([shifted, weights], axis=1)
        self.sums.assign_add(ops.sum(rows, axis=0))
        self.products.assign_add(ops.matmul(ops.transpose(rows), rows))
        self.samples.assign_add(ops.cast(ops.shape(rows)[0], "float32"))
        counts = ops.any(weights != 0, axis=1)
        self.weighted.assign_add(ops.sum(ops.cast(counts, "float32")))

    def result(self) -> Any:
        """The number of samples; `error` is what is wanted."""
        return self.samples

    def error(self) -> float | None:
        """The standard error; None where samples had no values, or fewer than two a weight."""
        sums, products = (ops.convert_to_numpy(v).astype(float) for v in (self.sums, self.products))
        n, all_of = (float(ops.convert_to_numpy(v)) for v in (self.weighted, self.samples))
        if n < 2 or not (np.isfinite(sums).all() and np.isfinite(products).all()):
            return None
        values, weights = np.split(sums, 2)
        means = np.divide(values, weights, out=np.zeros_like(values), where=weights != 0)
        # Of each sample, over all terms: the sum of a - r c.
        residual = np.concatenate([np.ones(self.terms), -means])
        square = max(0.0, float(residual @ products @ residual))
        # Keras divides a loss by the number of samples, a metric by the sum of their weights.
        divisor = all_of if self.of == "loss" else float(weights[0])
        return float(np.sqrt(square * n / (n - 1)) / divisor) if divisor else None


class Errors:
    """The moments of what a schedule's monitor may mean, of one model.

    Args:
        monitor: of the schedule.
        outputs: of the model.
    """

    def __init__(self, monitor: str, outputs: int) -> None:
        name = _ACCURACY if monitor == AUTO else monitor.removeprefix("val_")
        self.loss = Moments("loss", outputs)
        self.metric = None if name == "loss" else Moments(name)

    @property
    def moments(self) -> list[Moments]:
        """All of them."""
        return [self.loss] if self.metric is None else [self.loss, self.metric]

    def validated(self, model: keras.Model, y: Any, y_pred: Any, weight: Any, loss: Any) -> Any:
        """Compute a loss by calling `loss`, and note what each sample adds to it.

        Args:
            model: compiled.
            y: labels, a batch.
            y_pred: the model's outputs.
            weight: of the samples, or None.
            loss: computes the loss.
        """
        with each_loss(model) as shares:
            total = loss()
        self.loss.update_state(shares)
        if self.metric is not None:
            self.metric.update_state(mean_of_samples(model, self.metric.of, y, y_pred, weight))
        return total


class StandardErrors(keras.callbacks.Callback):
    """Adds `val_<name>_error` to each epoch's log. It must come before whatever reads the log.

    Args:
        errors: those of the stage's model.
    """

    def __init__(self, errors: Errors) -> None:
        super().__init__()
        self.errors = errors

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Read what the validation pass has summed up."""
        for moments in self.errors.moments if logs is not None else ():
            name = f"val_{moments.of}"
            error = moments.error() if name in (logs or {}) else None
            if logs is not None and error is not None:
                logs.setdefault(f"{name}_error", error)
