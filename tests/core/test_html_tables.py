"""Results as notebooks show them; names from users stay text."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from small_runs import HEAD, run
from unfreeze.core.audit import Audit, LayerMovement, StageAudit
from unfreeze.core.callbacks import History
from unfreeze.core.html_tables import html_table
from unfreeze.core.schedule import Plateau, Reached, Schedule, Stage

EVIL = "<script>alert('x')</script>&\x1b[31m\n"


class Cells(HTMLParser):
    """The cells of a table, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_numbers_and_text():
    found = Cells(html_table(["name", "n", "x"], [["a", 12345, 0.12345], [None, 0, 2.0]]))
    assert found.rows == [["name", "n", "x"], ["a", "12,345", "0.123"], ["", "0", "2"]]


def test_names_are_escaped_wherever_they_come_from():
    movement = LayerMovement(EVIL, 3, True, 0.5, 0.1)
    shown = [
        html_table([EVIL], [[EVIL]], EVIL, [EVIL]),
        Audit((StageAudit(EVIL, (movement,)),))._repr_html_(),
        Schedule([Stage(EVIL, train=[EVIL])], name=EVIL)._repr_html_(),
    ]
    for html in shown:
        assert "script" not in Cells(html).tags
        assert "&lt;script&gt;" in html
        assert "\x1b" not in html


def test_a_schedule_says_when_its_stages_end():
    stages = [
        Stage("a", "head", epochs=3, until=Plateau("best", patience=2)),
        Stage("b", until=Plateau("loss"), solve=False, learning_rate=1e-4),
        Stage("c", until=Reached("val_accuracy", 0.95)),
        Stage("d", "head", solve=True),
    ]
    rows = Cells(Schedule(stages)._repr_html_()).rows
    assert rows[1] == ["a", "head", "3", "0.001", "2 epochs without a gain", "frozen"]
    assert [row[4] for row in rows[2:]] == [
        *("3 epochs without a gain of loss", "val_accuracy 0.95", "")
    ]
    assert rows[4][3] == "solved"


@pytest.fixture(scope="module")
def result():
    return run(schedule=replace(HEAD, stages=HEAD.with_changes(epochs=2).stages))


def test_a_result_shows_its_stages_and_not_its_model(result):
    rows = Cells(result._repr_html_()).rows
    assert rows[1][:4] == ["head", "2", str(result.stages[0].best_epoch), "val_loss"]
    assert repr(result).startswith("head: best of 2 epochs is ")
    assert repr(result).endswith("The model has the weights of stage 'head'; seed 1.")
    (layer,) = (x for x in Cells(result.audit._repr_html_()).rows if x[0] == "head")
    assert (layer[1], layer[4]) == ("8", "trained")


def test_history_is_a_list_of_rows_and_what_keras_has(result):
    history = result.history
    assert isinstance(history, list)
    assert history == [*result.stages[0].rows]
    assert history.epoch == [0, 1]
    assert history.history["loss"] == [row["loss"] for row in history]
    assert set(history.history) == {
        *("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
    }
    mixed = History([{"stage": "a", "loss": 1.0, "C": 0.1}, {"stage": "b", "loss": 2.0}])
    assert mixed.history["loss"] == [1.0, 2.0]
    assert mixed.history["C"] == pytest.approx([0.1, float("nan")], nan_ok=True)
