"""The page of a review in a real browser: the whole loop by keys, two tabs, small screens."""

from contextlib import contextmanager

import pytest

from browsing import WAIT, browser, launch, watch  # noqa: F401
from reviewing import LENGTH
from serving import served

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api")

from unfreeze.serve.review_app import create_review_app

READY = "#clip[aria-busy=false]"
ASKED = "() => /^Is this/.test(document.getElementById('question').textContent)"


@contextmanager
def serving(session):
    """Serve it on a free port; yields its address with the token."""
    with served(create_review_app(session, "secret")) as url:
        yield f"{url}/#secret"


@pytest.fixture
def visit(browser, session):  # noqa: F811
    """Open the page in a new tab; whatever it logs as an error fails the test."""
    opened, faults = [], []
    with serving(session) as url:

        def visit(**options):
            page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **options})
            page.set_default_timeout(WAIT)
            opened.append(page)
            faults.append(watch(page))
            page.goto(url)
            page.wait_for_function(ASKED)
            page.wait_for_selector(READY)
            return page

        yield visit
        for page in opened:
            page.close()
    assert [fault for own in faults for fault in own] == []


def place(page):
    """Which clip is shown: recording and start."""
    name, times = page.inner_text("#where").rsplit(", ", 1)
    return name, float(times.split(" to ")[0])


def until(page, name, text):
    """Wait for a text in an element."""
    page.wait_for_function(
        "([name, text]) => document.getElementById(name).textContent.includes(text)",
        arg=[name, text],
    )


def press(page, key):
    """Answer by a key, and wait for the next clip."""
    before = page.inner_text("#where")
    page.keyboard.press(key)
    page.wait_for_function("(b) => document.getElementById('where').textContent !== b", arg=before)
    page.wait_for_selector(READY)


def heard(truth, page):
    name, start = place(page)
    found = [x for a, b, x in truth[name] if min(b, start + LENGTH) - max(a, start) > 0.5]
    return found[0] if found else None


@pytest.mark.slow
def test_label_by_keys_train_again_and_see_what_changed(visit, session, reviewed):
    page, truth = visit(), reviewed[1]
    page.select_option("#order", "quota")
    # Letters choose in a list that has the focus; Escape leaves it.
    page.locator("#order").press("Escape")
    page.wait_for_selector(READY)
    for _ in range(14):
        label = heard(truth, page)
        if page.inner_text("#question") == f"Is this {label}?":
            press(page, "y")
        elif label is None:
            press(page, "b")
        else:
            page.keyboard.press("o")
            page.locator("#other-name:focus").wait_for()
            page.keyboard.type(label)
            press(page, "Enter")
    until(page, "progress", "14 of 32")
    kept = session.store.decisions()
    assert len(kept) == 14
    for one in kept:
        rows = truth[one.recording.name]
        there = [x for a, b, x in rows if min(b, one.end) - max(a, one.start) > 0.5]
        assert one.label == (there[0] if there else "background")
    page.click("#train")
    page.wait_for_function(
        "() => document.getElementById('train-text').textContent.includes('Go on')"
    )
    # Meanwhile labels go on.
    press(page, "n")
    page.wait_for_selector("#change .big", timeout=150_000)
    change = session.training()["last"]["result"]["change"]["test"]
    before, after = change["before"]["accuracy"], change["after"]["accuracy"]
    assert page.inner_text("#change .big") == f"{before:.2f} → {after:.2f}"
    words = page.inner_text("#change")
    assert f"{change['clips']} test clips" in words
    assert "14 new labels" in words
    assert "95 % interval" in words
    assert "has a new order" in words
    assert len(session.store.decisions()) == 15
    # A model is written where one is asked for, by the command that is shown.
    run = session.folder / "run-1"
    assert not run.exists()
    page.click("summary")
    assert "--add-to" in page.inner_text("#command")
    page.click("#write")
    until(page, "model-text", "Writing the model of training 1")
    page.wait_for_selector("#write", state="hidden", timeout=150_000)
    assert f"is in {run}" in page.inner_text("#model-text")
    assert (run / "metrics.json").is_file()


def test_two_tabs_show_other_clips_and_do_not_overwrite(visit, session):
    one, two = visit(), visit()
    assert place(one) != place(two)
    clip = session._held[next(iter(session._held))][0]
    session.decide("elsewhere", clip, "unsure", asked="high")
    first = one if session._first.place(clip)[0].name == place(one)[0] and (
        session._first.place(clip)[1] == place(one)[1]
    ) else two  # fmt: skip
    first.keyboard.press("y")
    first.wait_for_selector("#error:not([hidden])")
    assert "called not sure" in first.inner_text("#cause")
    assert [d.answer for d in session.store.decisions()] == ["unsure"]
    first.click("#replace")
    first.wait_for_selector("#error", state="hidden")
    assert [d.answer for d in session.store.decisions()] == ["yes"]


def test_undo_shows_the_clip_again(visit, session):
    page = visit()
    before = place(page)
    press(page, "u")
    assert "Saved: not sure" in page.inner_text("#status")
    press(page, "z")
    assert place(page) == before
    assert session.store.decisions() == []
    page.keyboard.press("z")
    until(page, "status", "There is nothing to undo")


def test_keys_can_be_turned_off_and_do_not_answer_while_typing(visit, session):
    page = visit()
    page.keyboard.press("o")
    page.keyboard.type("bunny")
    page.keyboard.press("Escape")
    assert page.locator("#other").is_hidden()
    page.uncheck("#keys")
    page.keyboard.press("y")
    page.wait_for_timeout(200)
    assert session.store.decisions() == []
    page.click("[data-answer=yes]")
    until(page, "progress", "1 of 32")


def test_names_from_outside_are_only_text(visit, session):
    page = visit()
    evil = "<img src=x onerror='window.hacked=1'>"
    page.keyboard.press("o")
    page.fill("#other-name", evil)
    press(page, "Enter")
    page.wait_for_selector("#counts tbody tr")
    assert evil in page.inner_text("#count-rows")
    assert page.evaluate("() => window.hacked") is None


def test_a_sample_counts_and_the_page_fits_a_phone(visit, reviewed):
    page = visit(viewport={"width": 375, "height": 800}, color_scheme="dark")
    page.select_option("#label", "high")
    page.select_option("#order", "sample")
    page.locator("#order").press("Escape")
    page.wait_for_selector(READY)
    page.wait_for_function(
        "() => document.getElementById('question').textContent === 'Is this high?'"
    )
    for _ in range(12):
        press(page, "y" if heard(reviewed[1], page) == "high" else "n")
    page.wait_for_selector("#density .big")
    assert "of 32 clips" in page.inner_text("#density .big")
    assert "95 %" in page.inner_text("#density")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, .check")]
          .filter((one) => one.checkVisibility())
          .map((one) => [one.textContent, one.getBoundingClientRect()])
          .filter(([, box]) => box.height < 44 || box.width < 44).map(([text]) => text)"""
    )
    assert small == []


def test_a_wrong_address_is_explained(browser, session):  # noqa: F811
    with serving(session) as url:
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        page.goto(url.replace("secret", "wrong"))
        page.wait_for_selector("#error:not([hidden])")
        assert "token" in page.inner_text("#cause")
        page.close()


def test_the_skip_link_keeps_the_token_and_the_next_question_is_read_aloud(visit):
    page = visit()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#clip:focus")
    assert page.url.endswith("#secret")
    page.reload()
    page.wait_for_function(ASKED)
    page.wait_for_selector(READY)
    press(page, "u")
    assert page.inner_text("#status") == f"Saved: not sure. {page.inner_text('#question')}"


def test_two_samples_go_on_from_clip_to_clip(visit, session):
    page = visit()
    page.select_option("#order", "sample")
    page.wait_for_selector(READY)
    for label in ("low", "high"):
        page.select_option("#label", label)
        page.locator("#label").press("Escape")
        page.wait_for_function(
            "(text) => document.getElementById('question').textContent === text",
            arg=f"Is this {label}?",
        )
        page.wait_for_selector(READY)
        for _ in range(6):
            press(page, "n")
        page.wait_for_selector("#error", state="hidden")
    # A clip may be in both samples: then both answers count.
    assert session.density("high")[1] == {"known": 6, "unsure": 0}
    assert session.density("low")[1] == {"known": 6, "unsure": 0}
