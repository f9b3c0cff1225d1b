"""Reports that are opened in a browser."""

from __future__ import annotations

import pytest

from tests.support.commands import run_report


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    """The report of a run of two categories, and the data that its sections hold."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    result = run_report(trained.cwd, trained.aand, "--output", path)
    assert result.status == 0, result.err
    return path


@pytest.fixture
def open_page(browser, report):
    """open_page(path, **options of the browser context) shows a report; nothing may be fetched or complained about."""
    seen, contexts, expected = [], [], []

    def call(path=report, **options):
        expected.append(path.as_uri())
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(path.as_uri())
        return page

    yield call
    assert [line for line in seen if not line.startswith("data:")] == expected
    for context in contexts:
        context.close()
