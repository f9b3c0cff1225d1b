"""Links in the documents lead somewhere: files, and anchors in them. Pages are short enough to be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for folder in (".", "docs", "results") for path in (ROOT / folder).glob("*.md"))
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MAX_WORDS = 1250  # of a page, as wc -w counts them: about 1,200; commands.md is looked up, not read
MAX_README = 9000  # bytes
MENTION = re.compile(r"\bdocs/\w+\.(?:md|svg|png|py)\b")


def prose(text: str) -> str:
    """A page without what stands in it as code, where nothing is a link."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```", "", text))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    seen: dict[str, int] = {}
    for heading in re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        seen[name] = seen.get(name, -1) + 1
    return {f"{name}-{number}" if number else name for name, count in seen.items() for number in range(count + 1)}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    broken = []
    for link in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):  # another host, which is not asked
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# A title, 5 %\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "a.md"
    page.write_text(
        "# Here\n[1](b.md) [2](b.md#a-title-5-) [3](b.md#twice-1) [4](#here) [5](https://x.org/no) `[6](no.md)`\n"
        "```\n[7](no.md)\n```\n[8](no.md) [9](b.md#no) [10](#no) ![11](no.png) [12](b.md#twice-2)\n"
    )
    assert broken_links(page) == ["no.md", "b.md#no", "#no", "no.png", "b.md#twice-2"]


@pytest.mark.parametrize("folder", ["datasets", "models", "utils", "scripts", "benchmarks", "docs", "tests"])
def test_documents_that_programs_name_are_there(folder):
    for path in [*(ROOT / folder).rglob("*.py"), ROOT / "train.py", ROOT / "test.py", ROOT / "Makefile"]:
        missing = [name for name in MENTION.findall(path.read_text(encoding="utf-8")) if not (ROOT / name).is_file()]
        assert not missing, f"{path.relative_to(ROOT)}: {missing}"


def test_every_page_is_linked():
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page.read_text(encoding="utf-8")))
        if not re.match(r"[a-z]+:|#", link)
    }
    assert [name for page, name in zip(PAGES, NAMES, strict=True) if page not in linked and name != "README.md"] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_pages_are_short(page):
    assert page.name == "commands.md" or len(page.read_text(encoding="utf-8").split()) <= MAX_WORDS


def test_readme_is_short_and_shows_results_and_commands_first():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(text.encode()) <= MAX_README
    assert any(line.startswith("| category |") for line in lines[:15])
    assert all(any(line.startswith(f"python {name}.py ") for line in lines[:30]) for name in ("train", "test"))
