"""Names that reach a screen or a table hold nothing that cannot be seen."""

import csv
import io
import json
import pickle
from pathlib import Path

import pytest

from datasets.base import DataError
from datasets.names import csv_line, html_text, json_text, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("part 1/ä_部品.png", "part 1/ä_部品.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("a\x1b[2J\x9b1m\x7f", r"a\x1b[2J\x9b1m\x7f"),
        ("a\u2028b\u202egnp.exe\u200b", r"a\u2028b\u202egnp.exe\u200b"),
        ("bytes \udcff", r"bytes \udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(name, shown):
    assert printable(name) == printable(Path(name)) == shown
    assert shown.isprintable()


def test_an_error_is_the_lines_that_it_was_given():
    error = DataError("2 errors:", "a\nb.png", "\x1b[2J")
    assert str(error) == "2 errors:\na\\nb.png\n\\x1b[2J"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(DataError("one\nline")) == "one\\nline"


def test_cells_of_csv_are_text():
    line = csv_line(["=1+1", "-2", "+3", "@x", "\t=1", "\r", -2.5, None, 'a,"b"', "a\nb", "a=b"])
    assert line == "'=1+1,'-2,'+3,'@x,'\\t=1,'\\r,-2.5,,\"a,\"\"b\"\"\",a\\nb,a=b\n"
    assert next(csv.reader(io.StringIO(line)))[8] == 'a,"b"'


def test_json_keeps_names_in_its_own_escapes():
    content = {"a\n\x7f\x9b\u202e\udcff\U000e0041": ["\u00e4", 1.5]}
    text = json_text(content, indent=1)
    assert json.loads(text) == content and all(c.isprintable() or c == "\n" for c in text)
    assert "\u00e4" in text and "\\u009b" in text and "\\udb40\\udc41" in text


def test_names_in_html_are_text():
    assert html_text('<b>"\n') == "&lt;b&gt;&quot;\\n"
