"""The report of a run in a real browser: fits a phone, needs no network, works by keyboard."""

import numpy as np
import pytest

from browsing import WAIT, watch
from unfreeze.report.run_report import write_run_report


@pytest.fixture(scope="module")
def url(made):
    return write_run_report(made / "run").as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (375, "dark")])
def test_it_fits_and_its_cells_open_by_keyboard(browser, made, url, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(WAIT)
    faults, asked = watch(page), []
    page.on("request", lambda request: asked.append(request.url[:30]))
    page.goto(url)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    link = page.locator("a[data-cell]").nth(1)
    title, count = link.get_attribute("data-title"), int(link.get_attribute("data-count"))
    before = page.locator("main figure").count()
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.inner_text("dialog h2") == title
    assert page.locator("dialog figure:visible").count() == count >= 1
    assert page.locator("dialog audio:visible").count() == count
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    # Back where they were, and the keyboard where it was.
    page.wait_for_function(f"document.querySelectorAll('main figure').length === {before}")
    assert page.evaluate("document.activeElement.dataset.cell") == link.get_attribute("data-cell")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 20)")
    length = page.evaluate(
        "() => { const sound = document.querySelector('audio'); sound.preload = 'metadata';"
        "sound.load(); return new Promise(done => sound.onloadedmetadata = () => done("
        "sound.duration)); }"
    )
    assert 0.4 < length < 1.8
    assert faults == []
    assert {address for address in asked if not address.startswith("data:")} == {url[:30]}
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_coloured_cells_can_be_read(browser, url, scheme):
    """Contrast of at least 4.5 for text (WCAG 2.1, 1.4.3), on every colour of the table."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(url)
    pairs = page.evaluate(
        "() => ['r', 'w'].flatMap(kind => [1, 2, 3, 4, 5].map(level => {"
        "const cell = document.querySelector('.matrix tbody td'); cell.className = kind + level;"
        "const style = getComputedStyle(cell);"
        "return [style.color, style.backgroundColor].map(c => c.match(/[0-9.]+/g).map(Number)); }))"
    )
    ratios = [contrast(*pair) for pair in pairs]
    assert len({tuple(pair[1]) for pair in pairs}) == 10
    assert min(ratios) >= 4.5, ratios
    page.close()


def contrast(one, other):
    """WCAG's contrast of two colours, (red, green, blue) from 0 to 255."""

    def light(colour):
        share = np.array(colour[:3]) / 255
        linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
