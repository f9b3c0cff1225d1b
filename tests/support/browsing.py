"""Headless Chromium for tests of pages.

Tests that import this are skipped with a notice where there is none; with REQUIRE_BROWSER set (as in CI) that is a
failure. The browser is the fixture `browser`.
"""

from __future__ import annotations

import os
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api") if not os.environ.get("REQUIRE_BROWSER") else None
if playwright is None:
    import playwright.sync_api as playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not CHROMIUM:
    notice = "no Chromium to open pages in; install Debian's package chromium"
    if os.environ.get("REQUIRE_BROWSER"):
        raise RuntimeError(notice)
    pytest.skip(notice, allow_module_level=True)


def contrast(page, foreground: str, background: str) -> float:
    """WCAG's contrast of two colours that a script finds in a page, as getComputedStyle gives them."""
    lighter, darker = sorted((luminance(page.evaluate(script)) for script in (foreground, background)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
