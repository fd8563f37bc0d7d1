"""The page in a real browser: Chromium or Chrome, driven by Playwright."""

import base64
import csv
import re

import numpy as np
import pytest
import soundfile

import toy
from browsing import WAIT, watch
from serving import EVIL, running

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
pytest.importorskip("playwright.sync_api")

from unfreeze.pipeline.thresholds import LEVELS
from unfreeze.serve.upload import Limits
from unfreeze.serve.web_app import pages

FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture
def page(browser, url):
    """A page that has been opened; whatever it logs as an error fails the test."""
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    opened.set_default_timeout(WAIT)
    faults = watch(opened)
    opened.goto(url)
    yield opened
    assert faults == []
    opened.close()


def give(page, path, name=None):
    """Choose a file on the page, and wait for what it says."""
    content = path if isinstance(path, bytes) else path.read_bytes()
    file = {"name": name or path.name, "mimeType": "audio/wav", "buffer": content}
    page.set_input_files("#file", file)
    page.wait_for_function("() => !document.querySelector('#status.busy')")
    page.wait_for_selector("#result:not([hidden]), #error:not([hidden])")


def rows(page):
    return [row.split("\t")[1:] for row in page.locator("#rows tr").all_inner_texts()]


def shown(events):
    return [[e.label, f"{e.start:.2f}", f"{e.end:.2f}", f"{e.score:.2f}"] for e in events]


def sound_is(page, what):
    return page.wait_for_function(f"() => document.getElementById('audio').{what}")


def test_what_is_wrong_with_a_file_is_shown_with_its_result(page, two_sounds):
    give(page, two_sounds)
    assert not page.is_visible("#warnings")
    content = bytearray(two_sounds.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    give(page, bytes(content), "power-cut.wav")
    said = "The header says 0.00 s, the file holds 4.00 s; all of it is used."
    assert page.inner_text("#warnings") == said


def test_a_file_is_shown_heard_and_saved(page, classifier, two_sounds, tmp_path):
    give(page, two_sounds)
    assert page.inner_text("#file-name") == "two sounds.wav"
    assert page.inner_text("#facts") == "4.0 s, 16 kHz"

    events = classifier.detect(two_sounds)
    assert {event.label for event in events} >= {"high", "low"}
    assert rows(page) == shown(events)
    scores = classifier.predict(two_sounds)
    best = classifier.labels[scores.argmax()]
    assert page.locator("#classes li").first.inner_text().split() == [best, f"{scores.max():.2f}"]
    assert page.locator("#classes li").count() == 3

    # An event lies under the part of the picture that it is about.
    canvas = page.locator("#canvas").bounding_box()
    high = next(event for event in events if event.label == "high")
    box = (
        page.get_by_role("group", name="Events in time")
        .get_by_role("button", name="Play high")
        .first.bounding_box()
    )
    assert box["x"] == pytest.approx(canvas["x"] + high.start / 4 * canvas["width"], abs=2)
    assert box["width"] == pytest.approx((high.end - high.start) / 4 * canvas["width"], abs=2)

    with page.expect_download() as waiting:
        page.click("#csv")
    saved = tmp_path / "events.csv"
    waiting.value.save_as(saved)
    assert waiting.value.suggested_filename == "two sounds events.csv"
    read = list(csv.DictReader(saved.open(newline="")))
    assert [(float(r["start"]), float(r["end"]), r["label"]) for r in read] == [
        (e.start, e.end, e.label) for e in events
    ]


def test_a_file_can_be_dropped_anywhere(page, two_sounds):
    content = base64.b64encode(two_sounds.read_bytes()).decode()
    dropped = page.evaluate_handle(
        """(content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], "dropped.wav"));
          return files;
        }""",
        content,
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
    assert "over" in page.get_attribute("#drop", "class")
    page.dispatch_event("footer", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#file-name") == "dropped.wav"
    assert page.get_attribute("#drop", "class") == "drop"


def test_the_spectrogram_is_drawn_with_the_high_tone_above_the_low_one(page, two_sounds):
    give(page, two_sounds)
    # The brightest row of a column, from 0 at the top to 1, in each half of the picture.
    rows_of_tones = page.evaluate(
        """() => {
          const canvas = document.getElementById("canvas");
          const context = canvas.getContext("2d");
          return [0.25, 0.75].map((part) => {
            const { width, height } = canvas;
            const { data } = context.getImageData(Math.floor(part * width), 0, 1, height);
            const sum = (y) => data[4 * y] + data[4 * y + 1] + data[4 * y + 2];
            const light = Array.from({ length: height }, (_, y) => sum(y));
            return light.indexOf(Math.max(...light)) / height;
          });
        }"""
    )
    mel = [1127 * np.log1p(f / 700) for f in (125, 250, 2500, 7500)]
    low, high = ((m - mel[0]) / (mel[3] - mel[0]) for m in mel[1:3])
    assert rows_of_tones == pytest.approx([1 - high, 1 - low], abs=0.05)


def test_an_event_plays_itself_and_no_more(page, classifier, two_sounds):
    give(page, two_sounds)
    # Noted in the page itself: a machine under load would look too late from here.
    page.evaluate(
        """() => {
          window.noted = [];
          for (const name of ["play", "pause"]) {
            audio.addEventListener(name, () => noted.push([
              name, audio.currentTime, document.querySelectorAll(".event.playing").length,
              document.getElementById("play").ariaLabel,
            ]));
          }
        }"""
    )
    event = next(e for e in classifier.detect(two_sounds) if e.label == "high")
    assert event.end < 3
    page.locator("#lanes").get_by_role("button", name="Play high").first.click()
    page.wait_for_function("() => noted.length === 2")
    (began, start, playing, label), (ended, end, after, now) = page.evaluate("() => noted")
    assert (began, playing, label) == ("play", 1, "Pause")
    assert start == pytest.approx(event.start, abs=0.1)
    assert (ended, after, now) == ("pause", 0, "Play")
    assert event.end <= end < event.end + 0.75

    page.locator("#rows button").last.click()
    page.wait_for_function("() => noted.length === 3")
    last = classifier.detect(two_sounds)[-1]
    assert page.evaluate("() => noted[2][1]") == pytest.approx(last.start, abs=0.1)


def test_the_whole_recording_plays_pauses_and_moves_the_cursor(page, two_sounds):
    give(page, two_sounds)
    page.click("#play")
    page.wait_for_function("() => parseFloat(document.getElementById('cursor').style.left) > 5")
    page.click("#play")
    sound_is(page, "paused")
    at = page.evaluate("() => audio.currentTime")
    assert 0 < at < 4
    canvas = page.locator("#canvas")
    canvas.click(position={"x": 0.75 * canvas.bounding_box()["width"], "y": 20})
    page.wait_for_function("() => Math.abs(audio.currentTime - 3) < 0.05")
    # The cursor follows with the next event of the player, a moment later.
    page.wait_for_function(
        "() => Math.abs(parseFloat(document.getElementById('cursor').style.left) - 75) <= 2"
    )


def test_everything_can_be_done_with_the_keyboard(page, two_sounds):
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    # "For programs" comes before; the next stop is the button.
    with page.expect_file_chooser() as waiting:
        page.locator("#choose").focus()
        page.keyboard.press("Enter")
    waiting.value.set_files(two_sounds)
    page.wait_for_selector("#result:not([hidden])")

    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Space")
    sound_is(page, "paused === false")
    page.keyboard.press("Space")
    sound_is(page, "paused")

    first = page.locator("#lanes button[tabindex='0']")
    assert first.count() == 1
    first.focus()
    page.keyboard.press("End")
    focused = "() => document.activeElement.getAttribute('aria-label')"
    last = page.evaluate(focused)
    page.keyboard.press("Home")
    assert page.evaluate(focused) != last
    page.keyboard.press("ArrowRight")
    assert page.locator("#lanes button[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    sound_is(page, "paused === false")

    page.locator("#seek").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => audio.currentTime < 1")


def test_every_control_has_a_name(page, two_sounds):
    give(page, two_sounds)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, a")]
          .filter((one) => !one.closest("[hidden], [aria-hidden]"))
          .filter((one) => !one.ariaLabel && !one.labels?.length && !one.textContent.trim())
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


def test_the_message_of_the_server_is_shown_and_goes_away(page, two_sounds):
    give(page, b"only some text", "notes.wav")
    assert page.inner_text("#cause") == "notes.wav: it holds text, not sound"
    assert "Send a WAV" in page.inner_text("#cure")
    assert page.locator("#error").get_attribute("role") == "alert"
    assert not page.locator("#result").is_visible()
    give(page, two_sounds)
    assert not page.locator("#error").is_visible()
    assert page.locator("#result").is_visible()


def test_all_classes_that_are_heard_stand_out(browser, serve, several, two_sounds):
    with serve(several) as url:
        opened = browser.new_page()
        faults = watch(opened)
        opened.goto(url)
        give(opened, two_sounds)
        heard = several.heard(several.predict(two_sounds))
        assert opened.locator("#classes .heard .label").all_inner_texts() == list(heard)
        assert faults == []
        opened.close()


def test_names_of_files_and_classes_are_text(page, tmp_path):
    """Each name below would set `window.hacked` if it were taken for HTML."""
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.3 * np.random.default_rng(3).normal(size=32_000).clip(-3, 3), toy.RATE)
    name = "<img src=x onerror=\"window.hacked='file'\">.wav"
    give(page, noise, name)
    assert page.inner_text("#file-name") == name
    assert EVIL in page.inner_text(".known")
    assert any(row[0] == EVIL for row in rows(page))
    assert page.locator("#classes .label").first.inner_text() == EVIL
    names = page.locator("#lanes button").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert any(EVIL in name for name in names)
    assert page.locator("main img, main script").count() == 0

    give(page, b"text", name)
    assert page.inner_text("#cause").startswith(name)
    # Time for an onerror of a picture that should not be there.
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None


def test_the_least_score_can_be_chosen(page, classifier, tmp_path):
    # A tone that drowns in noise: how long it is heard depends on the score asked for.
    time = np.arange(6 * toy.RATE) / toy.RATE
    noise = np.random.default_rng(4).normal(size=len(time))
    path = tmp_path / "drowning.wav"
    soundfile.write(path, 0.2 * np.sin(6.283 * 2500 * time) + 0.03 * time * noise, toy.RATE)
    give(page, path)
    seen = []
    for least in ("0.9", "0.2"):
        with page.expect_response(lambda answer: "/predict" in answer.url):
            page.select_option("#least", least)
        page.wait_for_function("() => !document.querySelector('#status.busy')")
        assert rows(page) == shown(classifier.detect(path, min_score=float(least)))
        seen.append(rows(page))
    assert seen[0] != seen[1]


def test_a_slider_for_each_class(browser, serve, counted, two_sounds):
    with serve(counted) as url:
        opened = browser.new_page(viewport={"width": 375, "height": 800})
        opened.set_default_timeout(WAIT)
        faults = watch(opened)
        opened.goto(url)
        give(opened, two_sounds)
        usual = rows(opened)
        opened.click("#thresholds summary")
        sliders = opened.locator("#sliders input")
        assert sliders.count() == 3
        known = counted.thresholds_for()["high"]
        alarms = f"{known.false_alarms:.0f} false alarm{'' if known.false_alarms == 1 else 's'}"
        words = opened.locator("#sliders output").first.inner_text()
        assert words == (
            f"from 0.50, finds {known.recall:.0%}, {known.precision:.0%} right, {alarms}/h"
        ).replace("%", " %")
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 375
        with opened.expect_response(lambda answer: "class_score=high" in answer.url):
            sliders.first.press("End")
        opened.wait_for_function("() => !document.querySelector('#status.busy')")
        assert opened.locator("#sliders output").first.inner_text().startswith("from 0.9999")
        least = {"high": float(LEVELS[-1])}
        assert rows(opened) == shown(counted.detect(two_sounds, min_score=least)) != usual
        with opened.expect_response(lambda answer: "/predict" in answer.url):
            opened.click("#as-trained")
        opened.wait_for_function("() => !document.querySelector('#status.busy')")
        assert rows(opened) == usual
        assert faults == []
        opened.close()


def test_it_fits_a_phone_and_zooms(page, two_sounds):
    page.set_viewport_size({"width": 400, "height": 800})
    give(page, two_sounds)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400
    assert page.locator("#canvas").bounding_box()["width"] > 300
    assert page.locator("#lanes .inner-name").first.is_visible()
    before = page.locator("#canvas").bounding_box()["width"]
    page.click("#zoom-in")
    assert page.locator("#canvas").bounding_box()["width"] == pytest.approx(2 * before, abs=2)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400


def test_a_recording_given_before_the_classes_are_known_has_its_lanes(browser, url, two_sounds):
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    held = []
    page.route("**/labels", lambda route: held.append(route))
    page.goto(url)
    sound = {"name": "a.wav", "mimeType": "audio/wav", "buffer": two_sounds.read_bytes()}
    page.set_input_files("#file", sound)
    page.wait_for_selector("#status.busy")
    assert not page.is_visible("#result")
    held[0].continue_()
    page.wait_for_selector("#result:not([hidden])")
    assert page.locator("#lanes .lane").count() >= 2
    page.close()


def test_a_finger_finds_every_event_and_no_label_is_cut_on_a_phone(
    browser, url, classifier, two_sounds
):
    page = browser.new_page(viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True)
    page.set_default_timeout(WAIT)
    page.goto(url)
    give(page, two_sounds)
    sizes = page.evaluate(
        """() => [...document.querySelectorAll("main button, main select, summary")]
          .filter((one) => one.offsetParent)
          .map((one) => {
            const { width, height } = one.getBoundingClientRect();
            const before = getComputedStyle(one, "::before");
            const wide = one.className.includes("event") ? parseFloat(before.width) : 0;
            return [Math.max(width, wide), height];
          })"""
    )
    assert len(sizes) > 8
    assert all(width >= 43.9 and height >= 43.9 for width, height in sizes)
    # The cursor is at the start, where the labels of the lanes are.
    name = page.locator(".inner-name").first
    name.scroll_into_view_if_needed()
    box = name.bounding_box()
    on_top = "([x, y]) => document.elementFromPoint(x, y).className"
    assert page.evaluate(on_top, [box["x"] + 1, box["y"] + box["height"] / 2]) == "inner-name"
    for tick in page.locator("#axis span").all():
        place = tick.bounding_box()
        assert place["x"] + place["width"] <= 375
    # A word is not broken while there is room for it.
    assert page.locator("#rows td:nth-child(2)").first.bounding_box()["height"] < 60
    page.close()


def test_several_recordings_are_heard_one_after_the_other(page, classifier, two_sounds, tmp_path):
    content = two_sounds.read_bytes()
    broken, high = tmp_path / "broken.wav", tmp_path / "high.wav"
    broken.write_bytes(b"RIFF no sound")
    soundfile.write(high, 0.3 * np.sin(6.283 * 2500 * np.arange(toy.RATE) / toy.RATE), toy.RATE)
    files = [
        ("two.wav", content),
        ("broken.wav", broken.read_bytes()),
        ("high.wav", high.read_bytes()),
    ]
    page.set_input_files(
        "#file", [{"name": name, "mimeType": "audio/wav", "buffer": held} for name, held in files]
    )
    page.wait_for_function(
        "() => document.querySelectorAll('#items li').length === 3 && "
        "!/waiting|listening/.test(document.getElementById('items').textContent)"
    )
    # The first one is shown, the others are a click away.
    assert page.inner_text("#file-name") == "two.wav"
    told = page.locator("#items .told").all_inner_texts()
    assert told[1].startswith("broken.wav: ")
    assert told[2].startswith("high ")
    page.get_by_role("button", name="broken.wav").click()
    assert page.inner_text("#cause") == told[1]
    page.get_by_role("button", name="high.wav").click()
    assert page.inner_text("#file-name") == "high.wav"
    assert not page.is_visible("#error")
    assert page.get_by_role("button", name="high.wav").get_attribute("aria-current") == "true"

    with page.expect_download() as waiting:
        page.click("#all-csv")
    saved = tmp_path / "all.csv"
    waiting.value.save_as(saved)
    read = [
        (r["file"], r["label"], float(r["start"])) for r in csv.DictReader(saved.open(newline=""))
    ]
    expected = [
        (name, event.label, event.start)
        for name, path in (("two.wav", two_sounds), ("high.wav", high))
        for event in classifier.detect(path)
    ]
    assert read == expected

    # Another score is asked of all of them.
    page.select_option("#least", "0.9")
    page.wait_for_function("() => !document.querySelector('#status.busy')")
    page.wait_for_function(
        "() => !/waiting|listening/.test(document.getElementById('items').textContent)"
    )
    page.get_by_role("button", name="two.wav").click()
    assert rows(page) == shown(classifier.detect(two_sounds, min_score=0.9))
    page.click("#clear")
    assert not page.is_visible("#recordings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser, url, two_sounds, scheme):
    """Contrast of at least 4.5 for text (WCAG 2.1, 1.4.3), measured on computed colours."""
    page = browser.new_page(color_scheme=scheme)
    page.set_default_timeout(WAIT)
    page.goto(url)
    give(page, b"text", "notes.wav")
    give_error = page.evaluate(CONTRASTS)
    give(page, two_sounds)
    for text, ratio in [*give_error, *page.evaluate(CONTRASTS)]:
        assert ratio >= 4.5, text
    page.close()


CONTRASTS = """() => {
  const light = (rgb) => rgb.slice(0, 3)
    .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const rgb = numbers(getComputedStyle(one).backgroundColor);
      if (rgb.length === 3 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !one.checkVisibility() || one.disabled) continue;
    if (one.closest(".hidden, noscript")) continue;
    const pair = [numbers(getComputedStyle(one).color), ground(one)].map(light);
    const [a, b] = pair.sort((x, y) => y - x);
    found.push([one.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


def test_a_file_beyond_the_limit_is_not_even_sent(browser, classifier):
    with running(classifier, Limits(max_mb=0.1)) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector(".known")
        posts = []
        page.on("request", lambda request: posts.append(request.method))
        give(page, b"\0" * 200_000, "long.wav")
        assert "it has 0.2 MB; this server takes 0.1 MB" in page.inner_text("#cause")
        assert "POST" not in posts
        page.close()


def test_a_server_that_has_ended_is_told_and_tried_again(browser, classifier, two_sounds):
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    with running(classifier) as url:
        page.goto(url)
        page.wait_for_selector(".known")
    give(page, two_sounds)
    assert page.inner_text("#cause") == "The server does not answer"
    assert page.locator("#retry").is_visible()
    page.close()


def test_a_kind_that_the_browser_cannot_play_is_shown_all_the_same(page, tmp_path):
    path = tmp_path / "sound.aiff"
    soundfile.write(path, 0.3 * np.sin(np.arange(32_000)), toy.RATE)
    give(page, path)
    page.wait_for_selector("#no-sound:not([hidden])")
    assert page.locator("#play").is_disabled()
    assert page.locator("#classes li").count() == 3


def test_the_microphone_is_recorded_and_classified(launch, url, tmp_path):
    time = np.arange(3 * 48_000) / 48_000
    heard = tmp_path / "microphone.wav"
    soundfile.write(heard, 0.3 * np.sin(6.283 * 2500 * time), 48_000)
    page = launch(*FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={heard}").new_page()
    page.set_default_timeout(WAIT)
    faults = watch(page)
    page.goto(url)
    page.wait_for_selector(".known")
    page.click("#record")
    page.wait_for_selector("#meter:not([hidden])")
    page.wait_for_function("() => parseFloat(document.getElementById('level').style.width) > 50")
    page.wait_for_function(
        "() => /recording 0:0[2-9]/.test(document.getElementById('hint').textContent)"
    )
    page.wait_for_selector("#live:not([hidden])")
    assert re.fullmatch(r"Now: high [01]\.\d\d", page.inner_text("#live"))
    page.click("#record")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#file-name").startswith("recording ")
    assert 2 <= float(page.inner_text("#facts").split(" s,")[0]) <= 10
    assert page.locator("#classes .label").first.inner_text() == "high"
    assert not page.locator("#meter").is_visible()
    assert page.inner_text("#hint").startswith("or drop some here")
    assert not page.locator("#live").is_visible()
    assert faults == []


def test_the_microphone_stops_at_the_limit_of_the_server(launch, classifier):
    page = launch(*FAKE_MICROPHONE).new_page()
    page.set_default_timeout(WAIT)
    with running(classifier, Limits(max_seconds=2)) as url:
        page.goto(url)
        page.wait_for_selector(".known")
        page.click("#record")
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#facts").startswith("2.0 s")
        assert page.inner_text("#record-text") == "Record"


def test_a_microphone_that_is_denied_is_explained(page):
    page.click("#record")
    page.wait_for_selector("#error:not([hidden])")
    assert "microphone" in page.inner_text("#cause").lower()
    assert page.locator("#record").is_enabled()


def test_the_page_for_programs_lists_every_address(page, url):
    page.goto(f"{url}/docs")
    page.wait_for_selector("section")
    shown = page.inner_text("main")
    for text in ("/predict", "/labels", "/healthz", "min_score", "Retry-After", "Prediction"):
        assert text in shown
    assert f"{url}/predict" in page.inner_text("#example")


def test_nothing_is_loaded_from_elsewhere():
    for content, _ in pages().values():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        for word in ("http:", "https:", "innerHTML", "insertAdjacentHTML", "document.write"):
            assert word not in text
