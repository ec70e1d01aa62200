"""Debian's Chromium, driven by Playwright, for tests that look at a page as a person does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page, async_playwright

_UNPACKED = Path(__file__).parents[2] / ".venv" / "chromium"
_QUIET = (
    "--no-sandbox",  # which root may not use, and namespaces may be shut
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _chromium() -> tuple[str, dict[str, str]]:
    """Give the program and its environment; what fetch_chromium.sh unpacked brings libraries and fonts of its own."""
    program = _UNPACKED / "usr" / "lib" / "chromium" / "chromium"
    if program.exists():
        libraries = {str(file.parent) for file in (_UNPACKED / "usr" / "lib").rglob("*.so*")} - {str(program.parent)}
        return str(program), {
            "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries)),
            "FONTCONFIG_FILE": str(_UNPACKED / "fonts.conf"),
        }
    installed = shutil.which("chromium")
    if installed is None:
        pytest.skip("Chromium is not installed (Debian package chromium, or tests/support/fetch_chromium.sh)")
    return installed, {}


@asynccontextmanager
async def chromium(**options: object) -> AsyncIterator[BrowserContext]:
    """Run a browser with an empty profile until the end of the block.

    Args:
        **options: Of Playwright's contexts, such as `viewport` and `color_scheme`.
    """
    program, environment = _chromium()
    with tempfile.TemporaryDirectory(prefix="sk-chromium-") as profile:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                profile,
                executable_path=program,
                headless=True,
                args=list(_QUIET),
                env={**os.environ, **environment},
                **options,  # type: ignore[arg-type]  # Playwright checks them
            )
            try:
                yield context
            finally:
                await context.close()


class Watched:
    """A page, and all that went wrong in it.

    Attributes:
        page: The page.
        complaints: What the console was told as an error or a warning, uncaught errors, and what the page's
            Content-Security-Policy stopped.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location})")
