"""`unfreeze inspect --depths`: how well each depth of a network tells the classes apart."""

import json
import os
import subprocess
import sys

import pytest

import toy
from unfreeze.errors import UnfreezeError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        yield toy.write_sounds(folder / "data", clips=10)


TOY = ("--depths", "--backbone", "toy", "--validation", "0.4")


def test_the_profile_follows_the_report(data, inspected):
    output = inspected(data, *TOY)
    assert "30 clips in 30 groups, 3 classes" in output
    lines = output[output.index("What each depth of the network knows") :].splitlines()
    assert lines[1].split() == ["layer", "group", "accuracy", "balanced"]
    groups = [line.split() for line in lines[2:4]]
    assert [group[0] for group in groups] == ["block1", "block2"]
    for _, accuracy, balanced, blocks, *peak in groups:
        assert 0.3 < float(accuracy) <= 1
        assert blocks == "█" * round(30 * float(balanced))
        assert peak in ([], ["peak"])
    assert sum("peak" in group for group in groups) == 1
    text = " ".join(" ".join(lines[4:]).split())
    assert text.startswith("Each group alone, on 12 validation clips. Chance: 0.333.")
    assert "tells the classes apart" in lines[-1]
    assert "tells the classes apart" in lines[-1]
    assert max(map(len, lines[:-1])) <= 80


def test_json_has_the_profile(data, inspected):
    report = json.loads(inspected(data, *TOY, "--json"))
    assert report["clips"] == 30
    found = report["depths"]
    assert [group["group"] for group in found["groups"]] == ["block1", "block2"]
    assert found["peak"] in ("block1", "block2")
    assert found["peak"] in ("block1", "block2")
    assert found["clips"] == report["split"]["validation"]["clips"] == 12
    # The same again, to the bit.
    assert json.loads(inspected(data, *TOY, "--json"))["depths"] == found


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--validation", "0"), "10 validation clips or more; there are none"),
        (("--validation", "0.1"), "10 validation clips or more; there are 3"),
    ],
)
def test_too_few_clips(data, options, reason, inspected):
    output = inspected(data, "--depths", "--backbone", "toy", *options)
    assert reason in output
    assert "What each depth" not in output
    report = json.loads(inspected(data, "--depths", "--backbone", "toy", *options, "--json"))
    assert report["depths"]["groups"] == []
    assert reason in report["depths"]["summary"]


@pytest.mark.parametrize("option", [("--backbone", "toy"), ("--weights", "file.h5")])
def test_a_network_without_depths_is_refused(data, option, inspected):
    with pytest.raises(UnfreezeError, match=f"{option[0]} is used with --depths and --html"):
        inspected(data, *option)


def test_an_unknown_network(data, inspected):
    with pytest.raises(UnfreezeError, match="Unknown backbone 'yamnett'"):
        inspected(data, "--depths", "--backbone", "yamnett")


def test_keras_is_imported_for_depths_alone(data):
    code = (
        "import sys\n"
        "from unfreeze.cli import main\n"
        f"sys.argv = ['unfreeze', 'inspect', {str(data)!r}, '--json']\n"
        "try:\n    main()\n"
        "finally:\n    print({'keras', 'sklearn', 'matplotlib'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert json.loads(done.stdout)["clips"] == 30
    assert done.stderr.strip().endswith("set()")
