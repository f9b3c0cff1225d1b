"""Templates: whatever is filled in is text that can be seen, and cannot end what it stands in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from utils.drawing.pages import open_templates

EVIL = "</script><b>\"'&\n\u202e"


@pytest.fixture
def fill(tmp_path):
    def call(template: str, **values: object) -> str:
        (tmp_path / "t.html").write_text(template)
        return open_templates(tmp_path)("t.html", **values)

    return call


@pytest.mark.parametrize("value", [EVIL, Path(EVIL), [EVIL]])
def test_values_are_text_whatever_they_are(fill, value):
    text = fill("{{ value }}", value=value)
    assert "&lt;/script&gt;&lt;b&gt;" in text and text.isprintable() and "&amp;" in text
    assert not set("<>\"'") & set(text)
    assert fill("{{ value }}", value='<b>"\n') == "&lt;b&gt;&#34;\\n"


def test_json_is_what_it_was_and_cannot_end_its_element(fill):
    text = fill("{{ value|tojson }}", value={EVIL: [0.1, None]})
    assert json.loads(text) == {EVIL: [0.1, None]} and "<" not in text and text.isprintable()
    with pytest.raises(ValueError, match="Out of range"):
        fill("{{ value|tojson }}", value=float("nan"))


def test_what_templates_make_is_html_for_others_and_what_is_missing_is_an_error(fill):
    inner = fill("<p>{{ value }}</p>", value="<")
    assert fill("{{ value }}", value=inner) == "<p>&lt;</p>"
    with pytest.raises(UndefinedError):
        fill("{{ missing }}")
