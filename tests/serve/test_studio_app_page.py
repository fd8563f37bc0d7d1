"""The page of the studio in a real browser: the whole loop, by mouse, keys and on small screens."""

import os
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import toy
import toy_cli
from browsing import WAIT, browser, launch, watch  # noqa: F401
from fake_train import FAKE
from serving import served
from unfreeze.cli.app import app as command_line
from unfreeze.pipeline.saved_model import load_clip_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright.sync_api")

from playwright.sync_api import TimeoutError

from unfreeze.serve.studio_app import Studio, create_studio_app
from unfreeze.serve.studio_folder import open_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
LONG = 300_000


@contextmanager
def serving(studio):
    """Serve it on a free port; yields its address with the token."""
    with served(create_studio_app(studio, "secret")) as url:
        yield f"{url}/#secret"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return toy.write_sounds(tmp_path_factory.mktemp("sounds"), clips=12, classes=("high", "low"))


@pytest.fixture
def lab(tmp_path, sounds):
    return Path(shutil.copytree(sounds, tmp_path / "my lab" / "tones")).parent


@pytest.fixture
def open_page(browser):  # noqa: F811
    """Open the page in a new tab; whatever it logs as an error fails the test."""
    opened, faults = [], []

    def visit(url, **options):
        page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **options})
        page.set_default_timeout(WAIT)
        opened.append(page)
        faults.append(watch(page))
        page.goto(url)
        page.wait_for_selector("#places button")
        return page

    def close():
        # Before the server ends: the page would miss it.
        while opened:
            opened.pop().close()

    visit.close = close
    yield visit
    close()
    assert [fault for own in faults for fault in own] == []


@pytest.fixture
def fake(lab, open_page):
    """A studio whose trainings take seconds; returns it, and opens its page."""
    studio = Studio(open_folder(lab), program=FAKE, tied=FAKE)
    with serving(studio) as url:
        yield studio, lambda **options: open_page(url, **options)
        open_page.close()
    studio.close()


def choose(page, timeout=WAIT):
    """Choose the folder of tones, and see what is in it."""
    page.click("#places button:has-text('tones')")
    page.wait_for_selector("#use:enabled")
    page.click("#use")
    page.wait_for_selector("#training:not([hidden])", timeout=timeout)
    page.wait_for_function("() => document.getElementById('train-command').textContent")


def title(page, text, timeout=WAIT):
    """Wait for the title of the training; the page itself says why it does not come."""
    try:
        page.wait_for_function(
            "(text) => document.getElementById('now-title').textContent === text",
            arg=text, timeout=timeout,
        )  # fmt: skip
    except TimeoutError:
        pytest.fail(f"not {text}, but: {page.inner_text('main')}")


def test_choose_look_start_watch_stop_resume_and_use(fake, monkeypatch):
    studio, visit = fake
    page = visit()
    choose(page)
    assert "24 clips" in page.inner_text("#seen-text")
    rows = page.locator("#seen-table tbody tr").all_inner_texts()
    assert [row.split()[:2] for row in rows] == [["high", "12"], ["low", "12"]]
    assert page.inner_text("#seen-problems") == "No problems found."
    assert page.input_value("#name") == "tones-1"
    page.select_option("#option-schedule", "probe")
    page.click("#more summary")
    page.uncheck("#option-gate")
    page.wait_for_function(
        "() => document.getElementById('train-command').textContent.includes('--no-gate')"
    )
    line = page.inner_text("#train-command")
    assert shlex.split(line) == [
        "unfreeze", "train", str(studio.folder.root / "tones"), "--schedule", "probe",
        "--out", str(studio.folder.runs / "tones-1"), "--seed", "0", "--no-gate",
    ]  # fmt: skip
    page.click("#start")
    title(page, "Training tones-1")
    page.wait_for_selector("#charts figure")
    assert "Loss over" in page.locator("#charts svg").first.get_attribute("aria-label")
    assert page.text_content("#now-command") == line
    assert page.input_value("#name") == "tones-2"
    # Another tab sees the same, and can stop it.
    other = visit()
    title(other, "Training tones-1")
    other.click("#stop")
    for tab in (page, other):
        title(tab, "Stopped: tones-1")
    assert "interrupted" in page.inner_text("#runs li")
    monkeypatch.setenv("FAKE_EPOCHS", "1")
    page.click("#again")
    title(page, "Finished: tones-1")
    assert "accuracy 0.875 on the test clips" in page.inner_text("#runs li")
    with page.expect_popup() as popup:
        page.click("#report-0")
    # Its script runs, without the rights of the page.
    popup.value.wait_for_function("() => document.title === 'ran'")
    assert popup.value.evaluate("origin") == "null"
    page.select_option("#format-0", "saved_model")
    page.click("#export-0")
    page.wait_for_selector("[data-errand]:has-text('model.onnx in the run')")
    page.click("#listen-0")
    link = page.wait_for_selector("[data-errand] a")
    assert link.get_attribute("href") == "http://127.0.0.1:9"
    page.click("#runs summary")
    page.wait_for_selector("#runs code:has-text('unfreeze export')")


def test_a_second_training_and_a_taken_name_are_refused_with_a_line(fake):
    _, visit = fake
    page = visit()
    choose(page)
    page.click("#start")
    title(page, "Training tones-1")
    page.wait_for_selector("#now:focus")
    page.click("#start")
    page.wait_for_selector("#error:has-text('there is one at a time')")
    assert page.is_enabled("#start")
    assert page.evaluate("document.activeElement.id") == "start"
    page.fill("#name", "tones-1")
    page.wait_for_selector("#problem:has-text('There is a run tones-1 already')")
    assert page.is_disabled("#start")
    page.fill("#name", "../x")
    page.wait_for_selector("#problem:has-text('cannot be the name of a run')")


def test_clicks_in_quick_succession_are_done_one_after_the_other(fake):
    studio, visit = fake
    page = visit()
    # Both before the server has answered the first.
    page.evaluate("""() => {
        document.querySelector("#places button").click();
        document.querySelector("#path button").click();
    }""")
    page.wait_for_function("() => document.getElementById('main').ariaBusy === 'false'")
    assert page.locator("#path li").count() == 1
    choose(page)
    page.dblclick("#start")
    page.wait_for_selector("#now:focus")
    assert not page.is_visible("#error")
    assert studio.training.name() == "tones-1"


def test_files_are_dropped_into_a_new_class(fake, sounds, tmp_path):
    studio, visit = fake
    (tmp_path / "no sound.wav").write_text("<html>")
    page = visit()
    page.click("#places button:has-text('tones')")
    page.wait_for_selector("#use:enabled")
    page.click("#adding summary")
    files = sorted((sounds / "high").iterdir())[:2]
    page.set_input_files("#files", files)
    page.wait_for_selector("#error:has-text('Name the class first')")
    assert page.evaluate("document.activeElement.id") == "add-class"
    page.fill("#add-class", "owl <b>")
    page.set_input_files("#files", files)
    page.wait_for_selector("#added li.bad >> nth=1")
    page.fill("#add-class", "owl")
    page.set_input_files("#files", [*files, tmp_path / "no sound.wav"])
    page.wait_for_selector("#status:has-text('2 of 3 files are in tones/owl')")
    assert "it holds a web page" in page.inner_text("#added")
    found = sorted((studio.folder.root / "tones" / "owl").iterdir())
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in files]
    page.wait_for_selector("#places button:has-text('owl')")


def test_it_is_used_by_keyboard_alone(fake):
    _, visit = fake
    page = visit()
    page.locator("#places button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#use:enabled")
    assert page.evaluate("document.activeElement.closest('#places, #path') !== null")
    page.locator("#use").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#seen:focus")
    page.locator("#name").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#now:focus")
    title(page, "Training tones-1")


def test_on_a_phone_nothing_is_cut_and_targets_are_large(fake):
    _, visit = fake
    page = visit(viewport={"width": 375, "height": 800}, color_scheme="dark", has_touch=True)
    choose(page)
    page.click("#more summary")
    page.click("#adding summary")
    page.click("#start")
    page.wait_for_selector("#charts figure")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, a.button, input")]
            .filter((one) => one.checkVisibility() && one.type !== "checkbox")
            .map((one) => [one.id || one.textContent, one.getBoundingClientRect().height])
            .filter(([, height]) => height < 44)"""
    )
    assert small == []
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input:not([hidden]), select, svg, [role=region]")]
            .filter((one) => !one.labels?.length && !one.ariaLabel)
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.slow
@pytest.mark.needs_backend("tensorflow")
def test_the_whole_loop_with_a_real_training(lab, open_page, tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    monkeypatch.setenv("TOY_REPORT", "1")
    # Sums of one thread have one order.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    program = (sys.executable, toy_cli.__file__)
    studio = Studio(open_folder(lab), program=program, tied=program)
    with serving(studio) as url:
        page = open_page(url)
        choose(page)
        page.select_option("#option-backbone", "toy")
        page.select_option("#option-schedule", "classic")
        page.click("#more summary")
        page.fill("#option-epochs", "12")
        page.wait_for_function(
            "() => document.getElementById('train-command').textContent.includes('--epochs 12')"
        )
        line = page.inner_text("#train-command")
        page.click("#start")
        title(page, "Finished: tones-1", LONG)
        assert len(studio.training.state()["rows"]) == 24
        with page.expect_popup() as popup:
            page.click("#report-0")
        popup.value.wait_for_selector("main")
        assert "tones-1" in popup.value.title()
        page.select_option("#format-0", "saved_model")
        page.click("#export-0")
        page.wait_for_selector("[data-errand]:has-text('Exported')", timeout=LONG)
        open_page.close()
    studio.close()
    run = studio.folder.runs / "tones-1"
    assert (run / "model-saved_model").is_dir()
    # What the page showed does the same in a terminal.
    words = shlex.split(line)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    done = CliRunner().invoke(command_line, words)
    assert done.exit_code == 0, done.output
    one, two = (load_clip_model(path / "model.keras") for path in (run, tmp_path / "again"))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
