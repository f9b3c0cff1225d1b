"""The house: which family may import which, and what stays out of the libraries."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {  # docs/architecture.md says why
    "models": "",
    "datasets": "",
    "utils.system": "datasets",
    "utils.drawing": "datasets system",
    "utils.metrics": "datasets system",
    "utils.data": "datasets system",
    "utils.runs": "models datasets metrics data system",
    "utils.detection": "models datasets data runs metrics drawing system",
    "utils.training": "models datasets data runs detection metrics system",
    "utils.results": "models datasets data runs detection metrics drawing system",
    "utils.export": "models datasets runs detection system",
    "utils.report": "models datasets data runs detection results metrics drawing system",
    "utils.app": "datasets data detection drawing system",
    "utils.sweep": "models datasets runs results metrics system",
    "utils.cli": "models datasets runs system",
}
OURS = ("models", "datasets", "utils", "train", "test", "scripts")  # the last three may import all


def family_of(module: str) -> str:
    """The family of a module, e.g. "utils.runs" of "utils.runs.folder"."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "utils" else parts[0]


def modules() -> dict[str, Path]:
    """All modules of the library by name."""
    paths = [path for top in ("models", "datasets", "utils") for path in (ROOT / top).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports_of(source: str, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and name of each of our modules that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield node.lineno, full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)


def allowed(family: str) -> set[str]:
    """The families that a family may import."""
    return {name if name in MAY_IMPORT else f"utils.{name}" for name in MAY_IMPORT[family].split()}


def forbidden(module: str, source: str, known: dict[str, Path]) -> list[str]:
    """What a module imports and may not, a line each."""
    own = family_of(module)
    ours = ((line, name) for line, name in imports_of(source, known) if name.split(".")[0] in OURS)
    return [f"{module}:{line} imports {name}" for line, name in ours if family_of(name) not in {own, *allowed(own)}]


def test_every_import_is_an_allowed_arrow():
    known = modules()
    sources = {name: path.read_text() for name, path in known.items() if name != "utils"}
    wrong = [line for name, source in sources.items() for line in forbidden(name, source, known)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module, source", [
    ("utils.system.files", "from utils.runs.folder import read_config"),
    ("utils.runs.folder", "def late():\n    import utils.training.run"),
    ("models.aand", "from datasets import base"),
    ("utils.data.check", "import train"),
    ("utils.runs.folder", "from utils.cli import at_least"),
])
def test_a_forbidden_import_is_named(module, source):
    [line] = forbidden(module, source, modules())
    assert line.startswith(f"{module}:")


def test_the_table_has_no_circle():
    refuse_circles({family: allowed(family) for family in MAY_IMPORT})


def test_no_module_imports_itself_in_a_circle():
    known = modules()
    needs = {name: {n for _, n in imports_of(path.read_text(), known)} - {name} for name, path in known.items()}
    refuse_circles(needs)


def refuse_circles(needs: dict[str, set[str]]) -> None:
    """AssertionError naming those that need each other."""
    needs = dict(needs)
    while needs:
        free = [name for name, needed in needs.items() if not needed & needs.keys()]
        assert free, f"a circle among {', '.join(needs)}"
        for name in free:
            del needs[name]


def test_utils_has_families_and_the_command_line_alone():
    top = {path.name for path in (ROOT / "utils").iterdir() if path.suffix == ".py"}
    assert top == {"__init__.py", "cli.py"}


def test_libraries_know_nothing_of_the_command_line():
    for name, path in modules().items():
        if name == "utils.cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            told = isinstance(node, ast.Attribute) and (node.attr == "Namespace" or ast.unparse(node) == "sys.argv")
            assert not told, f"{name}:{node.lineno} uses {ast.unparse(node)}"
