"""What the tests in a real browser need. Needs Chromium (CHROMIUM, or on the PATH)."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from trainer.home import Home, shipped

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
T = TypeVar("T")
BLUEPRINT = shipped("assets", "styles", "blueprint")
PATIENCE = 120
"""Seconds that anything may take on a slow machine."""

expect.set_options(timeout=PATIENCE * 1000)


def wait_for(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first true value of `what`."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("There is no Chromium: install it, or name it in CHROMIUM.")
        pytest.skip("There is no Chromium on the PATH, and CHROMIUM names none.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(home: Home) -> Iterator[str]:
    """The page as a process of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "--home", str(home.root), "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        told = server.stdout.readline()
        assert f"http://127.0.0.1:{port}" in told
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.fixture
def address(home: Home) -> Iterator[str]:
    """Where the page is, with the test's home."""
    with serving(home) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened; at the end it must have asked nobody else for anything, and have had no errors."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    elsewhere: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if _is_foreign(request.url, address) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []


def _is_foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def create_dataset(page: Page, name: str) -> None:
    page.get_by_label("New dataset").fill(name)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#dataset-name input")).to_have_value(name)


def drop(page: Page, files: list[Path]) -> None:
    page.locator("#drop input[multiple]").set_input_files(files)


def pictures(count: int) -> list[Path]:
    return [BLUEPRINT / f"{number:02}.png" for number in range(1, count + 1)]
