"""How hypothesis damages files and JSON, and how many such inputs a check gets: for tests/support/fuzzing.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.commands import listing

EXAMPLES = {
    "images": 900, "structures": 900, "folders": 300, "lists": 400, "runs": 500, "checkpoints": 400, "commands": 200,
}
SECONDS = 10  # for one input, at most
SPECIAL = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 30_000)  # lengths that programs stumble over


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of some files, changed in up to six places."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["flip", "delete", "insert", "duplicate", "truncate", "overwrite"]))
        place, length = draw(st.integers(0, max(0, len(content) - 1))), draw(st.integers(1, 40))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "delete":
            del content[place : place + length]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "duplicate":
            content[place:place] = content[place : place + length]
        elif kind == "truncate":
            del content[place:]
        elif kind == "overwrite":
            order = draw(st.sampled_from(["big", "little"]))
            content[place : place + 4] = draw(st.sampled_from(SPECIAL)).to_bytes(4, order)
    return bytes(content)


NESTED = "nested"  # stands for lists in each other, too many to write
SPECIAL_VALUES = [
    None, True, -1, 0, 2**70, 10**400, 1e308, -0.5, float("nan"), float("inf"), "", "..", ".", "/etc/passwd", "C:\\x",
    "\0", "a" * 5000, "a/" * 3000 + "a", "\ud800", "\n", "nan", [], {}, [[]], {"a": 1}, NESTED,
]
ODD = st.sampled_from(SPECIAL_VALUES) | st.sampled_from(SPECIAL_VALUES) | st.floats() | st.text(max_size=8)


@st.composite
def altered(draw: st.DrawFn, original: dict) -> bytes:
    """JSON with one value replaced, or one key added or removed."""
    content = json.loads(json.dumps(original))
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from([*keys, "new"] if isinstance(place, dict) else keys))
        inner = place[key] if key in keys else None
        if not (isinstance(inner, dict | list) and inner and draw(st.integers(0, 5))):
            break
        place = inner
    if key in keys and draw(st.integers(0, 4)) == 0:
        del place[key]
    else:
        place[key] = draw(ODD)
    return json.dumps(content).replace(f'"{NESTED}"', "[" * 100_000 + "]" * 100_000).encode()


@contextmanager
def nothing_else_written(folder: Path, *within: Path) -> Iterator[None]:
    """AssertionError if files in `folder` change, but for those in `within`."""

    def others() -> dict:
        found = listing(folder).items()
        return {path: state for path, state in found if not any(map(Path(path).is_relative_to, within))}

    before = others()
    yield
    assert others() == before


def fuzz(kind: str, inputs: dict[str, st.SearchStrategy], check: Callable[..., None], share: float = 1.0) -> int:
    """Call `check` with so many inputs of a kind; returns how many they were."""
    factor = int(sys.argv[2]) if len(sys.argv) > 2 else None
    count = int(EXAMPLES[kind] * share * (factor or 1))
    calls = 0

    def counted(**arguments: object) -> None:
        nonlocal calls
        calls += 1
        check(**arguments)

    rules = settings(
        max_examples=count, derandomize=factor is None, database=None, deadline=1000 * SECONDS, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    counted.__name__ = counted.__qualname__ = check.__name__  # what is drawn depends on the name
    rules(given(**inputs)(counted))()
    return calls
