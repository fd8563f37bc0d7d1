"""The command line with the `toy` backbone, as a process of its own: `python toy_cli.py ARGS`.

Environment: UNFREEZE_CACHE; TOY_SIGNALS, numbers of signals that the process sends itself at the
end of its second epoch; TOY_REPORT, for runs with a report.
"""

import os
import pathlib
import sys

import pytest

import toy


def main() -> None:
    monkeypatch = pytest.MonkeyPatch()
    home = pathlib.Path(os.environ["UNFREEZE_CACHE"]).parent
    toy.register(monkeypatch, home, report="TOY_REPORT" in os.environ)
    from unfreeze.cli import main as command_line
    from unfreeze.cli.train_display import TrainDisplay

    signals = [int(number) for number in os.environ.get("TOY_SIGNALS", "").split()]
    original = TrainDisplay.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        for number in signals if epoch == 1 else ():
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainDisplay, "on_epoch_end", on_epoch_end)
    if sys.argv[1] == "studio":
        # Its trainings are started so, too.
        from unfreeze.review import retraining

        retraining.PROGRAM = (sys.executable, __file__)
    sys.argv[0] = "unfreeze"
    command_line()


if __name__ == "__main__":
    main()
