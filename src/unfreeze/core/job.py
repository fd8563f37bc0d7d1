"""What all stages of a run share: model, data, settings, and who hears of progress."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from unfreeze.core.cache import CacheRoom
from unfreeze.core.stage import Source, Whole
from unfreeze.core.watch import StageCallback
from unfreeze.errors import Stopped

log = logging.getLogger("unfreeze")


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages of a run share.

    Attributes:
        whole: the model.
        source: the data.
        room: where caches stand.
        compile_with: for `compile`, besides the optimizer.
        callbacks: the user's, for every stage.
        batch_size: where a stage or a dataset does not say its own.
        seed: of the run.
        verbose: as for Keras' `fit`.
        class_weight: as for Keras' `fit`.
        monitor: of the schedule.
        run_dir: keeps finished stages and the state of the one that trains, or None.
    """

    whole: Whole
    source: Source
    room: CacheRoom
    compile_with: dict[str, Any]
    callbacks: tuple[keras.callbacks.Callback, ...]
    batch_size: int
    seed: int
    verbose: Any
    class_weight: dict[int, float] | None
    monitor: str
    run_dir: Path | None

    @property
    def model(self) -> keras.Model:
        """The whole model."""
        return self.whole.model

    @property
    def listeners(self) -> list[StageCallback]:
        """Callbacks that hear of stages."""
        return [c for c in self.callbacks if isinstance(c, StageCallback)]

    def wants_to_stop(self) -> bool:
        """Whether a listener wants the run to end."""
        return any(listener.wants_to_stop() for listener in self.listeners)

    def stop_if_asked(self) -> None:
        """To be called where all that was earned is kept.

        Raises:
            Stopped: a listener wants the run to end.
        """
        if self.wants_to_stop():
            raise Stopped

    def note(self, text: str) -> None:
        """Tell the log and the listeners."""
        log.info(text)
        for listener in self.listeners:
            listener.on_note(text)
