"""Build the package `aand`: what uses trained categories, below one name.

In the repository the library is datasets/, models/ and utils/. Installed under these names it would stand in the way of
other packages, such as Hugging Face's datasets. So the build puts it and some of scripts/ below aand/, and changes each
module for its new place: imports, and the commands that texts name. pyproject.toml has the rest.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
CORE, DEPLOY = "requirements.txt", "requirements-deploy.txt"
MOVED = ("datasets", "models", "scripts", "utils")
PROGRAMS = ("app", "calibrate", "export", "predict")  # of scripts/
LEFT_OUT = ("utils.sweep", "utils.training")
BASE = ("numpy", "opencv-python-headless", "pillow", "msgspec", "tqdm", "jinja2", "onnxruntime")  # for exported files
TEXTS = {  # in the repository, and installed
    rb"(?:python )?scripts/(%s)\.py\b" % "|".join(PROGRAMS).encode(): rb"aand \1",
    rb"pip install -r requirements\.txt": rb"pip install 'aand[torch]'",
    rb"pip install -r requirements-deploy\.txt": rb"pip install 'aand[deploy]'",
}


class BuildBelowAand(build_py):
    """Copy the modules, each as it must be below aand/."""

    def run(self) -> None:
        shutil.rmtree(Path(self.build_lib, "aand"), ignore_errors=True)  # what an earlier build left
        super().run()

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        path, copied = super().build_module(module, module_file, package)
        Path(path).write_bytes(moved(Path(module_file).read_bytes(), module_file))
        return path, copied


class NotEditable(editable_wheel):
    """Refuse `pip install -e`, which would leave the modules and their imports as they are."""

    def run(self) -> None:
        raise SetupError("aand cannot be installed with -e; run the programs as they are: python scripts/predict.py")


def moved(source: bytes, name: str) -> bytes:
    """A module as it is below aand/: our imports begin with aand, nothing is added to sys.path, and texts name the
    installed commands. Lines keep their numbers, bytes literals stay. Raises SetupError for imports that do not bear
    it; name: the module's file, for the message."""
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    for line in set(text_lines(tree)):
        for pattern, installed in TEXTS.items():
            lines[line] = re.sub(pattern, installed, lines[line])
    for line, column in sorted(module_names(tree, name), reverse=True):
        lines[line] = lines[line][:column] + b"aand." + lines[line][column:]
    for node in tree.body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("sys.path.insert("):
            lines[node.lineno - 1 : node.end_lineno] = [b"\n"] * (node.end_lineno - node.lineno + 1)
    return b"".join(lines)


def text_lines(tree: ast.Module) -> Iterator[int]:
    """The indices of the lines that str literals are on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from range(node.lineno - 1, node.end_lineno)


def module_names(tree: ast.Module, name: str) -> Iterator[tuple[int, int]]:
    """Where imports name modules that are moved: index of the line, and of the byte in it."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and is_moved(node.module):
            yield node.lineno - 1, node.col_offset + len("from ")
        elif isinstance(node, ast.Import):
            for alias in filter(lambda alias: is_moved(alias.name), node.names):
                top = alias.name.partition(".")[0]
                if alias.asname is None and top in used:  # below aand/ the import would not define it
                    raise SetupError(f"{name}:{node.lineno} imports {alias.name} and uses {top}; import it by from")
                yield alias.lineno - 1, alias.col_offset


def is_moved(module: str) -> bool:
    return module.partition(".")[0] in MOVED


def requirements(*files: str, only: Iterable[str] | None = None) -> list[str]:
    """The lines of requirements files, or those of some packages."""
    lines = [line for file in files for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    by_name = {re.match(r"[\w-]+", line)[0]: line for line in lines}
    return list(by_name.values()) if only is None else [by_name[name] for name in only]


if __name__ == "__main__":
    library = find_packages(
        ROOT, include=[f"{name}{rest}" for name in MOVED for rest in ("", ".*")],
        exclude=[f"{name}{rest}" for name in LEFT_OUT for rest in ("", ".*")],
    )
    setup(
        packages=["aand", *(f"aand.{name}" for name in library)],
        py_modules=[f"aand.scripts.{name}" for name in PROGRAMS],
        package_dir={f"aand.{name}": name for name in MOVED},
        package_data={"": ["templates/*"]},
        include_package_data=False,  # those alone
        install_requires=requirements(CORE, DEPLOY, only=BASE),
        extras_require={
            "torch": requirements(CORE), "deploy": requirements(DEPLOY), "app": requirements(DEPLOY, only=["gradio"]),
        },
        cmdclass={"build_py": BuildBelowAand, "editable_wheel": NotEditable},
    )
