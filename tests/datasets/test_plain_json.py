"""JSON of strangers: read, or a ValueError."""

from __future__ import annotations

import os

import pytest

from datasets import plain_json
from datasets.plain_json import parse_json, read_json


def test_plain_values_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, -2.5, "\\ud83d\\ude00", null, true], "b": {"c": 9223372036854775807}}')
    assert read_json(path) == {"a": [1, -2.5, "\U0001f600", None, True], "b": {"c": 2**63 - 1}}
    assert parse_json("[" * 19 + "1" + "]" * 19)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1}}', "Extra data"),
        (b'"\xff"', "utf-8"),
        (b"NaN", "NaN is not a finite number"),
        (b"[-Infinity]", "-Infinity is not a finite number"),
        (b"1e400", "1e400 is not a finite number"),
        (b"9223372036854775808", "9223372036854775808 is too large"),
        (b"-" + b"9" * 5000, "-9999999999999999999 is too large"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'["\\uDC00"]', "surrogates not allowed"),
        (b"[" * 21 + b"]" * 21, "nested too deeply"),
        (b'{"a":' * 25 + b"1" + b"}" * 25, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_json(tmp_path / "a.json")


def test_large_files_and_what_is_no_file_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_json, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text('"12345678"')
    assert read_json(tmp_path / "a.json") == "12345678"
    (tmp_path / "a.json").write_text('"123456789"')
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read_json(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError):
            read_json(path)
