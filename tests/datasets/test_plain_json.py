"""JSON of strangers: read, or a ValueError."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import pytest

from datasets import plain_json
from datasets.plain_json import parse_json, read_json, typed


def test_plain_values_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, -2.5, "\\ud83d\\ude00", null, true], "b": {"c": 9223372036854775807}}')
    assert read_json(path) == {"a": [1, -2.5, "\U0001f600", None, True], "b": {"c": 2**63 - 1}}
    assert parse_json("[" * 19 + "1" + "]" * 19)


class Part(msgspec.Struct):
    """An example: a count."""

    count: Annotated[int, msgspec.Meta(ge=1)]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ([1], "expected object, got array"),
        ({}, "object missing required field count"),
        ({"count": 0}, "count: expected int >= 1"),
        ({"count": True}, "count: expected int, got bool"),
        ({"count": 1.0}, "count: expected int, got float"),
    ],
)
def test_content_of_another_type_is_an_error_that_names_the_field(content, error):
    assert typed({"count": 2}, Part) == Part(2)
    with pytest.raises(ValueError) as caught:
        typed(content, Part)
    assert str(caught.value) == error
    with pytest.raises(ValueError, match=r"^parts\[1\]\.count: expected int >= 1$"):
        typed([{"count": 1}, {"count": 0}], list[Part], "parts")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"a": 1}}', "trailing characters"),
        (b'"\xff"', "utf-8"),
        (b"NaN", "invalid character"),
        (b"[-Infinity]", "invalid character"),
        (b"1e400", "out of range"),
        (b"9223372036854775808", "too large"),
        (b"-" + b"9" * 5000, "out of range"),
        (b'"\\ud800"', "truncated"),
        (b'["\\uDC00"]', "surrogate"),
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
