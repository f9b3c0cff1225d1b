"""Names that reach a screen or a table hold nothing that cannot be seen."""

from pathlib import Path

import pytest

from datasets.names import printable


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
