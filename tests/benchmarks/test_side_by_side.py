"""Lines are counted as the page says, and what cannot run is reported, with the others."""

import json
import os
import re
from pathlib import Path

import pytest
from benchmarks.processes import SideFailed
from benchmarks.side_by_side import PROGRAMS, count_lines

from benchmarks import side_by_side

FOLDER = Path(side_by_side.__file__).parent / "same_task"

TEXT = '''"""A docstring
of two lines."""

import a
from b import (
    c,
    d,
)


# A comment.
class E(a.A):
    """Another."""

    f = """text
    that is code"""  # with a comment

    def g(self) -> int:
        """A third."""
        from h import i

        return i(
            c,
            d,
        )
'''


def test_lines_are_counted_without_docstrings_comments_and_blank_lines():
    lines = count_lines(TEXT)
    assert lines.imports == 6  # one, four, and one in the function
    assert lines.code == 8  # class, two of text, def, four of return


def test_no_program_hides_lines_in_another():
    """What the programs share is data and network; the worker's end is no part of them."""
    for program in PROGRAMS.values():
        text = (FOLDER / f"{program}.py").read_text("utf-8")
        shared = {line.split()[1] for line in text.splitlines() if line.startswith("from bench")}
        assert shared <= {
            "benchmarks.same_task.pictures",
            "benchmarks.same_task.vit_keras",
            "benchmarks.same_task.vit_torch",
        }
        assert count_lines(text).code > 10


def test_the_page_shows_the_lines_and_the_code_of_the_programs():
    page = (FOLDER.parents[1] / "docs" / "side-by-side.md").read_text("utf-8")
    programs = {name: (FOLDER / f"{file}.py").read_text("utf-8") for name, file in PROGRAMS.items()}
    for name, text in programs.items():
        lines = count_lines(text)
        assert f"| {name} | {lines.code} | {lines.imports} |" in page
    shown = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(shown) == len(programs)
    for block, text in zip(shown, programs.values(), strict=True):
        written = text.splitlines()
        assert [line for line in block.splitlines() if line not in written] == []


class Started:
    """A process with an accuracy that its seed gives; PEFT is not installed."""

    versions = {"torch": "1"}  # noqa: RUF012

    def __init__(self, side):
        self.args = side.args

    def round(self):
        if "path" in self.args:  # of the pretraining
            return {}
        if self.args["program"] == "with_peft":
            raise SideFailed("ModuleNotFoundError: No module named 'peft'")
        seed = self.args["seed"]
        return {"accuracy": 0.5 + seed / 10, "inside_seconds": 1.0, "seconds": 2.0, "peak_mb": 1}

    def close(self):
        pass


def test_each_round_has_a_seed_and_a_missing_package_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(side_by_side, "FreshProcess", Started)
    monkeypatch.setenv("KERAS_BACKEND", "as it was")  # `main` sets it; put back afterwards
    monkeypatch.setattr("sys.argv", ["side_by_side", "--out", str(tmp_path / "found.json")])
    side_by_side.main()
    results = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert results["settings"]["rounds"] == 3
    assert results["sides"]["unfreeze"]["accuracy"]["by_round"] == [0.5, 0.6, 0.7]
    assert results["failed"] == {"PEFT": "ModuleNotFoundError: No module named 'peft'"}
    assert os.environ["KERAS_BACKEND"] == "torch"
    lines = results["lines"]["unfreeze"]
    shown = capsys.readouterr().out.splitlines()
    cells = "0.600 (0.500 to 0.700) | 1.0 (1.0 to 1.0) | 2.0 (2.0 to 2.0)"
    assert f"| unfreeze | {lines['code']} | {lines['imports']} | {cells} |" in shown
    assert any(row.startswith("| PEFT |") and row.endswith("| not run |  |  |") for row in shown)
    assert "PEFT was not run to the end: ModuleNotFoundError: No module named 'peft'" in shown
    assert "python -m benchmarks --setup installs what is missing" in shown


def test_a_number_of_seeds_below_one_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["side_by_side", "--seeds", "0"])
    with pytest.raises(SystemExit):
        side_by_side.main()
    assert "--seeds must be at least 1" in capsys.readouterr().err
