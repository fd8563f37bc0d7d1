import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import toy
from unfreeze import cli
from unfreeze.cli import app as table
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.train_options import OPTIONS

COMMANDS = (
    "train",
    "compare",
    "tune",
    "evaluate",
    "report",
    "predict",
    "listen",
    "segments",
    "export",
    "serve",
    "studio",
    "inspect",
    "plan",
    "weights",
    "demo",
)


def call(*words, **env):
    """Run the command line as a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-c", "from unfreeze.cli import main; main()", *map(str, words)],
        env={**os.environ, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_names_every_command():
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(command in shown for command in COMMANDS)


def test_the_table_of_commands_shows_the_first_line_of_each():
    """`unfreeze --help` imports none of them, so their lines stand in the table, too."""
    said = {name: command.help for name, command in get_command(app).commands.items()}
    assert {name: text.split("\n\n")[0].replace("\n", " ") for name, text in said.items()} == (
        table.COMMANDS
    )
    shown = CliRunner().invoke(table.app_for(["--help"]), ["--help"])
    assert shown.output == CliRunner().invoke(app, ["--help"]).output


def test_a_command_imports_its_own_module_alone():
    code = (
        "import sys\nfrom unfreeze.cli.app import app_for\n"
        "app_for(['predict', 'run'])\n"
        "print([x for x in sys.modules if x.startswith('unfreeze.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) == {
        *("unfreeze.cli.app", "unfreeze.cli.predict", "unfreeze.cli.arguments"),
        "unfreeze.cli.sentences",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_of_training_has_headings_and_whole_names():
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "80"})
    headings = re.findall(r"^╭─ (.+?) ─", result.output, flags=re.MULTILINE)
    assert headings[:2] == ["Arguments", "Options"]
    assert headings[2:] == [
        *("Recordings", "Network", "Training", "Long recordings", "Machines and other programs"),
    ]
    shown = set(re.findall(r"(?<=[ ,])--[a-z-]+", result.output))
    flags = {name: f"--{name.replace('_', '-')}" for name in OPTIONS if name != "data"}
    assert {flag for name, flag in flags.items() if not OPTIONS[name].hidden} <= shown


def test_help_does_not_import_keras():
    code = (
        "import sys\nfrom unfreeze.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_version():
    from unfreeze.version import __version__

    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"unfreeze {__version__}"


BAD = [
    (["train", "{tmp}/missing", "--out", "{tmp}/run"], "missing does not exist"),
    (["train", "{tmp}/one", "--out", "{tmp}/run"], "only one class"),
    (["train", "{tmp}/data", "--out", "{tmp}/run", "--schedule", "two_stages"], "two_stage"),
    (["train", "{tmp}/data", "--out", "{tmp}/run", "--schedule", "{tmp}/no.yaml"], "no.yaml"),
    (["train", "{tmp}/data", "--out", "{tmp}/run", "--backbone", "yamnets"], "yamnet"),
    (["train", "{tmp}/data", "--out", "{tmp}/data"], "holds no unfreeze run"),
    (["train", "{tmp}/data", "--out", "{tmp}/run", "--epochs", "0"], "0 epochs"),
    (["predict", "{tmp}/nothing", "{tmp}/data/low/low_0.wav"], "does not exist"),
    (["evaluate", "{tmp}/data", "{tmp}/data"], "not a run folder"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_refused_with_its_cause(monkeypatch, tmp_path, words, message):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    toy.write_sounds(tmp_path / "data", clips=3)
    toy.write_sounds(tmp_path / "one", clips=3, classes=("low",))
    result = CliRunner().invoke(app, [word.format(tmp=tmp_path) for word in words])
    assert isinstance(result.exception, UnfreezeError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_a_users_error_is_one_message_without_a_traceback(tmp_path):
    done = call("train", tmp_path / "missing", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_missing_schedule_file_is_one_message(tmp_path, monkeypatch, capfd):
    # That a backend's own words are held back: tests/test_backend.py, in a process of its own.
    words = ["plan", "yamnet", "--schedule", str(tmp_path / "none.yaml")]
    monkeypatch.setattr(sys, "argv", ["unfreeze", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    said = capfd.readouterr().err
    assert "none.yaml: cannot be read: No such file" in said
    assert said.count("\n") == 1


def test_a_schedule_that_matches_no_layer_is_refused_before_training(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=4)
    plan = tmp_path / "plan.yaml"
    plan.write_text("unfreeze_schedule: 1\nstages:\n- name: head\n  train: transfr_*\n")
    words = ["train", str(data), "--out", str(tmp_path / "run"), "--backbone", "toy"]
    result = CliRunner().invoke(app, [*words, "--schedule", str(plan)])
    assert "'transfr_*' matches no layer" in str(result.exception)
    assert "transfer_output" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_missing_weights_without_a_network_name_the_cure(tmp_path):
    toy.write_sounds(tmp_path / "data", clips=4)
    done = call(
        "train", tmp_path / "data", "--out", tmp_path / "run",
        UNFREEZE_CACHE=str(tmp_path / "empty"), UNFREEZE_YAMNET_WEIGHTS="",
        HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9",
        PIP_INDEX_URL="http://127.0.0.1:9/", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    assert done.returncode == 2
    assert "UNFREEZE_YAMNET_WEIGHTS" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.on_each_backend
def test_train_predict_evaluate_round_trip(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data, out = toy.write_sounds(tmp_path / "data", clips=6), tmp_path / "run"
    run = CliRunner()
    words = ["train", str(data), "--out", str(out), "--backbone", "toy", "--epochs", "2"]

    first = run.invoke(app, words)
    assert first.exit_code == 0, first.output
    for text in ("18 clips", "stage head", "stage all", "accuracy"):
        assert text in first.output
    told = " ".join(first.output.split())
    solved = r"stage head: solved with C 0\.\d+, the best of 2 \(val_loss [\d.]+, val_clip_acc"
    assert re.search(solved, told)
    assert "stage start: solved with C 0.01 (val_loss" in told
    # What an epoch was chosen by comes first, and nothing comes twice.
    best = (
        r"stage all: the last of 2 epochs is kept \(val_loss [\d.]+, val_clip_accuracy [\d.]+, "
        r"val_accuracy [\d.]+\), "
    )
    assert re.search(best, told)
    # The last line is a command that can be run as it stands, on a clip of the test set.
    assert "Trained without background" in first.output
    assert "repeat the command without --no-gate" in first.output
    last = next(line for line in first.output.splitlines() if line.startswith("Try it: "))
    told = shlex.split(last.removeprefix("Try it: "))
    assert told[:3] == ["unfreeze", "predict", str(out)]
    tried = run.invoke(app, told[1:])
    assert tried.exit_code == 0, tried.output
    rows = csv.DictReader((out / "splits.csv").open())
    tested = {str(data / row["path"]) for row in rows if row["split"] == "test"}
    assert told[3] in tested

    again = run.invoke(app, words)
    assert "holds a finished run" in str(again.exception)
    words += ["--schedule", "head_only"]
    replaced = run.invoke(app, [*words, "--overwrite", "--json"])
    assert replaced.exit_code == 0
    assert json.loads(replaced.stdout)["test"]["clips"] == 3

    # Started until it is done: that it is done is no error, another run would be.
    done = run.invoke(app, [*words, "--resume", "--json"])
    assert done.exit_code == 0
    assert "finished: there is nothing to do" in done.stderr
    assert json.loads(done.stdout) == json.loads(replaced.stdout)
    other = run.invoke(app, [*words, "--resume", "--seed", "7"])
    assert "options.seed was 0 and is 7" in str(other.exception)

    quiet = run.invoke(app, [*words, "--overwrite", "--quiet"])
    assert "stage head" not in quiet.output
    assert "accuracy" in quiet.output

    files = [str(path) for path in sorted(data.rglob("*.wav"))[:2]]
    shown = run.invoke(app, ["predict", str(out), *files, "--top", "2"])
    assert shown.output.count("\n") == 2
    found = json.loads(run.invoke(app, ["predict", str(out), *files, "--json"]).stdout)
    assert [item["file"] for item in found] == files
    assert sum(found[0]["classes"].values()) == pytest.approx(1, abs=1e-4)

    (tmp_path / "bad.wav").write_text("no sound")
    said = run.invoke(app, ["predict", str(out), str(tmp_path / "bad.wav"), files[0]])
    assert said.stderr.startswith("error: ")
    assert said.stderr.count("bad.wav") == 1
    mixed = run.invoke(app, ["predict", str(out), str(tmp_path / "bad.wav"), files[0], "--json"])
    assert mixed.exit_code == 1
    rows = json.loads(mixed.stdout)
    assert "bad.wav" in rows[0]["error"]
    assert rows[1]["classes"] == found[0]["classes"]

    scores = run.invoke(app, ["evaluate", str(out), str(data), "--json"])
    assert json.loads(scores.stdout)["clips"] == 18
    table = run.invoke(app, ["evaluate", str(out), str(data)])
    assert "18 clips in" in table.output


def test_overwrite_never_removes_what_is_no_run(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=4)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    words = ["train", str(data), "--out", str(mine), "--backbone", "toy", "--overwrite"]
    assert "holds no unfreeze run" in str(CliRunner().invoke(app, words).exception)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_the_command_in_the_config_repeats_the_run(monkeypatch, tmp_path):

    import yaml

    toy.register(monkeypatch, tmp_path)
    data, out = toy.write_sounds(tmp_path / "my data", clips=5), tmp_path / "run"
    words = [
        "train", str(data), "--out", str(out), "--backbone", "toy", "--epochs", "1",
        "--learning-rate", "0.002", "--seed", "3", "--batch-size", "8", "--test", "0.2",
        "--schedule", "head_only",
    ]  # fmt: skip
    assert CliRunner().invoke(app, words).exit_code == 0
    first = (out / "metrics.json").read_text()
    command = yaml.safe_load((out / "config.yaml").read_text())["command"]
    assert CliRunner().invoke(app, [*shlex.split(command)[1:], "--overwrite"]).exit_code == 0
    assert (out / "metrics.json").read_text() == first


def test_demo_says_that_its_sounds_are_synthetic(monkeypatch, tmp_path):
    seen = {}

    def run(options, json, quiet, make_data):
        make_data()
        seen.update(options=options)

    monkeypatch.setattr("unfreeze.cli.demo.run", run)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--clips", "6"])
    assert result.exit_code == 0, result.output
    assert "computed, not recorded" in result.output
    assert seen["options"].out == tmp_path / "demo"
    # Kept, so that the next command has something to work on.
    assert seen["options"].data == tmp_path / "demo-sounds"
    assert len(list((tmp_path / "demo-sounds").rglob("*.wav"))) == 120


def test_help_is_quick():
    # Processor time, as the machine may be busy; Keras alone would take seconds of it.
    before = os.times()
    assert call("--help").returncode == 0
    after = os.times()
    assert after.children_user - before.children_user < 2.0


def test_help_does_not_wait_for_numpy() -> None:
    code = "import sys, unfreeze.cli.app; sys.exit(bool({'numpy', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_that_a_console_has_no_code_for_are_escaped(tmp_path):
    for label, clips in (("日本", 0), ("ö", 1)):
        toy.write_sounds(tmp_path, 3, (label,), seed=clips)
    result = subprocess.run(
        [sys.executable, "-c", "from unfreeze.cli import main; main()", "inspect", tmp_path],
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    shown = result.stdout.decode("cp1252")
    assert "6 clips" in shown
    assert "ö" in shown
    assert r"\u65e5\u672c" in shown
