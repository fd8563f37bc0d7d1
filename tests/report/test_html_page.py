"""The pieces of pages: what is given as text stays text."""

import re
from pathlib import Path

from html_reader import Reader
from unfreeze.audio.rules import Problem
from unfreeze.report.html_page import (
    contents,
    counted,
    details,
    document,
    facts,
    notes,
    number,
    paragraph,
    percent,
    problem_list,
    rate,
    section,
    table,
)

EVIL = "</title><b onclick='x'>\"&"


def test_text_is_escaped_everywhere():
    parts = [
        paragraph(EVIL),
        notes([EVIL]),
        section("Odd", EVIL, "x").html,
        details(EVIL, "x"),
        table(EVIL, (EVIL,), [("x",)]),
        facts({EVIL: "x"}),
        problem_list([Problem(Path(EVIL), "rule", EVIL, True)]),
    ]
    html = document(EVIL, "".join(parts))
    assert "onclick='" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    assert Reader(html).of("b") == [{}]
    assert document("a\ud800\nb", "").count("a\\ud800\\nb") == 1


def test_a_page_without_a_script_allows_none():
    policy = Reader(document("t", "")).of("meta")[3]["content"]
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'")


def test_what_is_empty_is_left_out():
    full, empty = section("Full", "Title", "x"), section("Empty", "Title", "", "")
    assert empty.html == ""
    assert re.findall(r"href='([^']+)'", contents([full, empty])) == ["#full"]
    assert table("t", ("a",), []) == details("s", "") == notes([]) == paragraph("") == ""


def test_a_table_names_its_rows_and_columns():
    reader = Reader(table("Title", ("class", "clips", ""), [("dog", "3", "<i></i>")]))
    assert [a["scope"] for a in reader.of("th")] == ["col", "col", "row"]
    assert reader.rows == [["class", "clips", ""], ["dog", "3", ""]]
    assert reader.of("div")[0]["aria-label"] == "Title"


def test_numbers_in_words():
    shares = [None, 0.0, 0.001, 0.917, 0.9999, 1.0]
    assert [percent(s) for s in shares] == ["–", "0 %", "1 %", "92 %", "99 %", "100 %"]
    assert percent(0.9996, 1) == "99.9 %"
    assert [number(None), number(0.12345), number(1, 1)] == ["–", "0.123", "1.0"]
    assert [rate(0.0), rate(0.0502), rate(9.96), rate(1300.4)] == ["0", "0.05", "10", "1,300"]
    assert counted(1, "class", "classes") == "1 class"
    assert paragraph("92 % of 1 %") == "<p>92&nbsp;% of 1&nbsp;%</p>"
