"""Tables of a detector's scores."""

from rich.console import Console

from reporting import LONG, detector_scores
from unfreeze.report.event_scores import event_tables


def text_of(scores, width=80):
    console = Console(width=width, record=True, color_system=None)
    console.print(event_tables(scores, "run on field"))
    return console.export_text()


def test_the_tables_have_every_number():
    scores = detector_scores(["cat", "dog", LONG])
    text = text_of(scores)
    for rule in ("overlap", "IoU", "onset", "segments"):
        row = scores["overall"][rule.lower()]
        shown = next(line for line in text.splitlines() if line.startswith(f"{rule} "))
        keys = ("precision", "recall", "f1", "macro_f1", "mean_average_precision")
        assert shown.split()[1:] == [f"{row[key]:.3f}" for key in keys]
    assert "60 true events" in text
    assert f"{scores['false_alarms']['per_hour']:.1f} an hour" in " ".join(text.split())
    assert "starts at most 0.5 s apart" in text
    assert "taken as complete" in text
    cat = next(line for line in text.splitlines() if line.startswith("cat"))
    row = scores["per_class"]["cat"]
    assert cat.split()[1:3] == ["20", str(row["found_events"])]
    assert f"{row['overlap']['average_precision']:.3f}" in cat
    assert f"{row['false_alarms_per_hour']:.1f}" in cat


def test_the_tables_fit_and_show_names_as_they_are():
    text = text_of(detector_scores(["cat", LONG], sounds=2000))
    assert max(map(len, text.splitlines())) <= 80
    assert "a $name" in text
    rows = [line for line in text.splitlines() if line.startswith(("cat", "a $name"))]
    assert all(line.rstrip()[-1].isdigit() for line in rows)


def test_an_incomplete_annotation_has_no_false_alarms_an_hour():
    text = text_of(detector_scores(["cat"], full=False))
    assert "an hour" not in text
    assert "taken as incomplete" in text
    assert next(x for x in text.splitlines() if x.startswith("cat")).split()[-1] == "–"
