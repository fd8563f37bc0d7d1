"""Each format, field by field, as its reader expects it."""

import csv
import io
import json

import pytest

from unfreeze.detection.event_files import FORMATS, Source, clock
from unfreeze.detection.events import Event

EVENTS = [Event(0.0, 1.44, "dog", 0.98765), Event(3723.456789, 3724.2, "große, Katze", 0.5)]
SOURCE = Source("site 1/night.wav", 125.0, 4000.0)


def text(name, events=EVENTS):
    return FORMATS[name].head + FORMATS[name].rows(SOURCE, events)


def test_audacity_has_start_end_and_label_between_tabs():
    assert text("audacity") == ("0.000000\t1.440000\tdog\n3723.456789\t3724.200000\tgroße, Katze\n")


def test_audacity_labels_cannot_break_the_line():
    rows = text("audacity", [Event(0, 1, "a\tb\nc", 1.0)])
    assert rows == "0.000000\t1.000000\ta b c\n"


def test_raven_has_its_seven_columns_and_ours_behind():
    rows = list(csv.DictReader(io.StringIO(text("raven")), delimiter="\t"))
    assert list(rows[0]) == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
        "High Freq (Hz)", "Begin File", "Class", "Score",
    ]  # fmt: skip
    assert [row["Selection"] for row in rows] == ["1", "2"]
    assert {row["View"] for row in rows} == {"Spectrogram 1"}
    assert {row["Channel"] for row in rows} == {"1"}
    assert rows[1]["Begin Time (s)"] == "3723.456789"
    assert rows[1]["End Time (s)"] == "3724.200000"
    assert (rows[0]["Low Freq (Hz)"], rows[0]["High Freq (Hz)"]) == ("125.0", "4000.0")
    assert rows[0]["Begin File"] == "night.wav"
    assert (rows[1]["Class"], rows[0]["Score"]) == ("große, Katze", "0.9877")


def test_raven_without_events_is_its_header():
    assert text("raven", []).count("\n") == 1


def test_csv_quotes_what_needs_it():
    rows = list(csv.reader(io.StringIO(text("csv"))))
    assert rows[0] == ["file", "start", "end", "label", "score"]
    assert rows[2] == ["site 1/night.wav", "3723.457", "3724.200", "große, Katze", "0.5000"]


def test_jsonl_is_an_object_a_line():
    rows = [json.loads(line) for line in text("jsonl").splitlines()]
    assert rows[0] == {
        "file": "site 1/night.wav", "start": 0.0, "end": 1.44, "label": "dog", "score": 0.9877,
    }  # fmt: skip
    assert rows[1]["label"] == "große, Katze"


def test_the_table_says_when_nothing_was_heard():
    assert text("table", []) == "site 1/night.wav: nothing heard\n"
    assert "1:02:03.46  1:02:04.20  große, Katze  0.500" in text("table")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00:00.00"), (59.999, "0:01:00.00"), (86_400, "24:00:00.00")]
)
def test_the_clock_carries_over(seconds, shown):
    assert clock(seconds) == shown
