"""What `fit` prints while it trains: the stage, what it trains, and how far it is.

Keras' own bar counts calls where several steps go into one (`16/5`), and knows no stages. In a
terminal and in a notebook one line shows the running epoch, and is replaced by the line of
the epoch when that ends; where the output goes to a file, only these lines are written.
The numbers of a step are never asked for, as Keras would wait for each of them.
"""

import shutil
import sys
import time
from typing import Any, TextIO

import numpy as np

from unfreeze.core.callbacks import StageCallback
from unfreeze.core.estimate import in_words
from unfreeze.errors import DataError, show

# Seconds between two looks of the running line, and characters of its bar.
_EVERY = 0.1
_BAR = 20
_AUTO = "auto"


def progress_for(verbose: Any) -> list["Progress"]:
    """The display that `verbose` asks for: 0 none, "auto" or 1 a running line, 2 lines of epochs.

    Raises:
        DataError: `verbose` is none of these.
    """
    if verbose not in (_AUTO, 0, 1, 2):
        raise DataError(f"verbose is {verbose!r}: it must be 0, 1, 2 or 'auto'")
    return [] if verbose == 0 else [Progress(running=verbose != 2)]


class Progress(StageCallback):
    """Prints the progress of a run.

    Args:
        running: whether the epoch that runs has a line, where the output can show one.
    """

    # On the screen already, by the log.
    hears_warnings = False

    def __init__(self, running: bool = True) -> None:
        super().__init__()
        self.running = running
        self._plan: Any = None
        self._width = 0  # of the running line that is shown now
        self._shown_at = 0.0
        self._epoch, self._epoch_began = 0, 0.0
        self._mark: tuple[float, int] | None = None

    def on_stage_begin(self, plan: Any) -> None:
        """Say what the stage trains."""
        self._plan, self._mark = plan, None
        spans = [s.first if s.first == s.last else f"{s.first} … {s.last}" for s in plan.spans[:2]]
        more = " ..." if plan.spans[2:] else ""
        layers = f"{len(plan.trains)} layer{'' if len(plan.trains) == 1 else 's'}"
        self._line(
            f"stage {plan.stage}: trains {', '.join(spans)}{more} ({layers}, "
            f"{plan.weights_trained:,} of {plan.weights_total:,} weights)"
        )

    def on_note(self, text: str) -> None:
        """Print what the run has to say, such as why a stage is not cached."""
        self._line(text)

    def on_cache(self, what: str, done: int, total: int) -> None:
        """Show how far the frozen layers are over the data."""
        of = f"/{total:,}" if total else ""
        self._run(f"frozen layers, once ({what}): {done:,}{of} samples")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock of an epoch."""
        self._epoch, self._epoch_began = epoch, time.perf_counter()
        self._show(0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Show the running epoch; `batch` steps of it are done."""
        self._show(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Print the line of the epoch."""
        seconds = time.perf_counter() - self._epoch_began
        values = [f"{name} {float(value):.4g}" for name, value in (logs or {}).items()]
        self._line(f"{self._where()}  {seconds:.1f} s  {'  '.join(values)}")

    def on_stage_end(self, result: Any) -> None:
        """Print what the stage reached."""
        self._line(
            f"stage {result.stage}: best of {result.epochs} epochs is {result.best_epoch} "
            f"({result.monitor} {result.best_value:.4g}), {in_words(result.seconds)}"
        )

    def _where(self) -> str:
        epochs = int(self.params["epochs"])
        return f"{self._plan.stage} {self._epoch + 1:{len(str(epochs))}}/{epochs}"

    def _show(self, done: int) -> None:
        steps = self.params.get("steps")
        if not steps:
            self._run(f"{self._where()}  step {done + 1:,}")
            return
        filled = _BAR * done // steps
        bar = f"[{'=' * filled}{'.' * (_BAR - filled)}]"
        text = f"{self._where()}  {bar} {done:,}/{steps:,}"
        left = self._seconds_left(done, steps)
        self._run(text if left is None else f"{text}  at most {in_words(left)} left")

    def _seconds_left(self, done: int, steps: int) -> float | None:
        """Of the stage, from the pace since its first step, which takes longer to begin."""
        over, now = self._epoch * steps + done, time.perf_counter()
        if self._mark is None:
            if done or self._epoch:
                self._mark = (now, over)
            return None
        began, first = self._mark
        if over <= first:
            return None
        total = int(self.params["epochs"]) * steps
        return (now - began) / (over - first) * (total - over)

    def _run(self, text: str) -> None:
        """Replace the running line, not too often."""
        now = time.perf_counter()
        out = sys.stdout
        if not (self.running and _can_replace(out)) or now - self._shown_at < _EVERY:
            return
        self._shown_at = now
        text = _encodable(show(text)[: _columns() - 1], out)
        out.write(f"\r{text:{self._width}}")
        out.flush()
        self._width = len(text)

    def _line(self, text: str) -> None:
        """Print a line that stays, in place of the running one."""
        out = sys.stdout
        start = f"\r{'':{self._width}}\r" if self._width else ""
        self._width = 0
        out.write(f"{start}{_encodable(show(text), out)}\n")
        out.flush()


def _can_replace(out: TextIO) -> bool:
    """Whether a line of the output can be written over: in a terminal or a notebook."""
    return out.isatty() or type(out).__module__.partition(".")[0] == "ipykernel"


def _columns() -> int:
    return int(np.clip(shutil.get_terminal_size().columns, 40, 120))


def _encodable(text: str, out: TextIO) -> str:
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
