"""Callbacks that send a run's numbers to TensorBoard or MLflow, where `unfreeze train` is asked to.

They read the log of each epoch and change nothing: a run with them ends with the same weights.
"""

from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.train_options import TrainOptions


def trackers(options: TrainOptions) -> list[keras.callbacks.Callback]:
    """The callbacks that the options ask for.

    Raises:
        UnfreezeError: what one needs is not installed; says how to install it.
    """
    found: list[keras.callbacks.Callback] = []
    if options.tensorboard is not None:
        _need("--tensorboard", "tensorflow", "tensorboard")
        # Its graph would be that of the first stage alone.
        found.append(keras.callbacks.TensorBoard(options.tensorboard, write_graph=False))
    if options.mlflow is not None:
        _need("--mlflow", "mlflow")
        found.append(MLflowLog(options.mlflow, options.as_plain()))
    return found


class MLflowLog(keras.callbacks.Callback):
    """Writes a run's settings, and the log of each epoch, to an MLflow server or store.

    Args:
        uri: of the server, such as http://localhost:5000, or of any store of MLflow.
        settings: of the run, by name.
    """

    def __init__(self, uri: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.uri, self.settings = uri, settings

    def on_train_begin(self, logs: Any = None) -> None:
        """Start a run."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment("unfreeze")
        # A run of the caller's own may be active.
        mlflow.start_run(nested=True)
        mlflow.log_params(self.settings)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the numbers, by the epoch over all stages."""
        import mlflow

        values = {name: float(value) for name, value in (logs or {}).items()}
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        mlflow.log_metrics(finite, step=epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """End the run."""
        import mlflow

        mlflow.end_run()


def _need(option: str, *packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        install = " ".join("mlflow-skinny" if name == "mlflow" else name for name in missing)
        raise UnfreezeError(f"{option} needs {' and '.join(missing)}: pip install {install}")
