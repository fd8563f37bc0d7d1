import io

import numpy as np
from rich.console import Console

from unfreeze.audio.segments_file import Corrections
from unfreeze.pipeline.scoring import score_change
from unfreeze.report.tables import change_table, corrections_line


def shown(change):
    console = Console(file=io.StringIO(), width=80)
    console.print(change_table(change))
    return console.file.getvalue()


def test_both_sets_of_clips_fit_80_columns():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20)
    before, after = rng.dirichlet([1, 1], 20), rng.dirichlet([1, 1], 20)
    scores = score_change(truth, before, after, ("[a]", "b"), np.arange(20))
    text = shown({"test": scores, "corrected": scores})
    assert max(map(len, text.splitlines())) <= 80
    for word in ("old test clips", "corrected, held out", "balanced", "macro f1", " 20 "):
        assert word in text
    assert f"{scores['difference']['accuracy']:+.3f}" in text
    low, high = scores["intervals"]["macro_f1"]
    assert f"{low:+.3f} to {high:+.3f}" in text


def test_a_set_without_clips_has_no_rows():
    scores = score_change([0], [[1, 0]], [[0, 1]], ("a", "b"), [0])
    text = shown({"test": scores, "corrected": None})
    assert "held out" not in text
    assert "too narrow to be trusted" in " ".join(text.split())


def test_corrections_are_said_in_words():
    moved = tuple(("cat", f"class {i}", 9 - i) for i in range(8))
    text = corrections_line(Corrections(4, moved, 2, 0, ("owl",), disputed=1).as_plain())
    assert text.splitlines()[0] == (
        "corrections: 4 kept, 44 moved, 2 deleted, 1 left out: in the run's test set in "
        "another class"
    )
    assert "cat -> class 0: 9" in text
    assert "and 2 more pairs" in text
    assert "new classes: owl" in text
