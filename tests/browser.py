"""A page in a headless Chromium, for tests that look at what a person would see."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WAIT_SECONDS = 180.0
"""For each thing on a page; on a quiet machine it takes a few seconds."""


@contextmanager
def browser_page(width: int, height: int) -> Iterator[Any]:
    """A playwright page of that size; skips the test where Chromium or playwright is absent."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"], timeout=WAIT_SECONDS * 1000
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(WAIT_SECONDS * 1000)
        yield page
        browser.close()
