"""A real browser for pages: Chromium or Chrome, driven by Playwright."""

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 60_000  # ms; a machine under load is slow


@pytest.fixture(scope="module")
def launch():
    """Start a browser with more options; all are closed at the end."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    program = os.environ.get("UNFREEZE_TEST_BROWSER") or found
    if program is None:
        pytest.skip("no Chromium or Chrome (set UNFREEZE_TEST_BROWSER)")
    # Chromium refuses to run as root with its sandbox, as in most containers.
    sandbox = [] if getattr(os, "geteuid", lambda: 1)() else ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        yield lambda *options: driver.chromium.launch(
            executable_path=program, args=[*options, *sandbox]
        )


@pytest.fixture(scope="module")
def browser(launch):
    """A browser without further options."""
    started = launch()
    yield started
    started.close()


def watch(page):
    """Collect errors of scripts and all that the content policy has blocked."""
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: (
            faults.append(message.text)
            if message.type == "error" and "the server responded with" not in message.text
            else None
        ),
    )
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    return faults
