"""Stands in for `unfreeze train` where only its process matters: `python fake_train.py train ...`.

It keeps the progress file and writes a run's folder like the real one, but trains nothing: an
epoch is a tenth of a second of sleep. `export` and `serve` only print what those would; all
else is real. Environment: FAKE_EPOCHS (600), FAKE_ERROR, a message.
"""

import os
import signal
import sys
import time
from pathlib import Path

from typer.main import get_command

from unfreeze.cli.app import app
from unfreeze.errors import DataError
from unfreeze.files import write_json, write_text
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.run_progress import recorded
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, command_line

#: Starts it.
FAKE = (sys.executable, str(Path(__file__).absolute()))


def main() -> None:
    if sys.argv[1] == "export":
        print('{"file": "model.onnx", "bytes": 12000000, "check": {}}')
    elif sys.argv[1] == "serve":
        print("run (2 classes) is at http://127.0.0.1:9", flush=True)
        time.sleep(120)
    elif sys.argv[1] == "train":
        train()
    else:
        app()


def train() -> None:
    params = get_command(app).commands["train"].make_context("train", sys.argv[2:]).params
    options = TrainOptions(**{name: params[name] for name in OPTIONS})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with recorded(params["progress"], command_line(options), options.resume) as told:
        run(options, told)


def run(options, told) -> None:
    if "FAKE_ERROR" in os.environ:
        raise DataError(os.environ["FAKE_ERROR"])
    out, epochs = options.out, int(os.environ.get("FAKE_EPOCHS", "600"))
    if not options.resume:
        config = {"command": command_line(options), "options": options.as_plain()}
        run_folder.write_config(out, {**config, "labels": ["high", "low"]})
    done = out / "done.txt"
    begun = int(done.read_text()) if done.exists() else 0
    told.work("Reading recordings", 1, 2)
    told.plan([("head", epochs)])
    told.stage("head")
    print("training", flush=True)
    for number in range(begun + 1, epochs + 1):
        time.sleep(0.1)
        told.epoch("head", number, epochs, {"loss": 1 / number, "val_accuracy": 0.5})
        # Whole or not at all: it may be stopped at any moment.
        write_text(done, str(number))
    write_text(
        out / run_folder.REPORT, "<title>a report</title><script>document.title='ran'</script>"
    )
    write_json(out / run_folder.METRICS, {"test": {"accuracy": 0.875}})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
