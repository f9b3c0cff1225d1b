"""What `pip install .` gives: one package, `aand`, and its command, beside other packages of the library's names."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from setuptools.errors import SetupError

from tests.support.commands import ROOT, run_process
from tests.support.trees import write_image
from tests.support.untrained import make_run, photographs

FOLDERS = ("aand", "benchmarks", "datasets", "docs", "models", "scripts", "tests", "utils")
NAMESAKES = ("datasets", "models", "scripts", "utils")
# What a computer with exported files need not have:
ABSENT = ("torch", "torchvision", "timm", "scipy", "sklearn", "skimage", "filelock", "psutil", "yaml", "onnx", "gradio")
IMPORT_ALL = """
import importlib, pkgutil, sys, aand
names = [found.name for found in pkgutil.walk_packages(aand.__path__, "aand.")] + ["aand.scripts.predict"]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


@dataclass(frozen=True)
class Installed:
    """The built files, and the folders that a call has on its path."""

    folder: Path
    wheel: Path
    sdist: Path

    def call(self, *arguments: object, absent: bool = False) -> subprocess.CompletedProcess:
        """Call `aand`, or with -c Python, outside the repository; absent: without the packages ABSENT."""
        paths = [self.folder / name for name in ("site", "namesakes", *["absent"] * absent)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        program = sys.executable if arguments[0] == "-c" else self.folder / "site/bin/aand"
        return subprocess.run(
            [program, *map(str, arguments)], cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    folder = tmp_path_factory.mktemp("install")
    tree = folder / "tree"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, tree)
    build(tree, "sdist", folder / "built")
    build(tree, "wheel", folder / "built")
    [wheel], [sdist] = (list((folder / "built").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder / "site", wheel], check=True)
    for place, names, error in (
        ("namesakes", NAMESAKES, "raise AssertionError(f'another package, {__name__}, was imported')"),
        ("absent", ABSENT, "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)"),
    ):
        (folder / place).mkdir()
        for name in names:
            (folder / place / f"{name}.py").write_text(error)
    make_run(folder / "part")
    write_image(folder / "photo.png", photographs(1)[0])
    return Installed(folder, wheel, sdist)


def build(tree: Path, kind: str, target: Path) -> str:
    """Build as pip does, without the network; what the build printed."""
    target.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 or kind == "editable", done.stderr
    return done.stdout + done.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_what_uses_trained_categories_below_aand(installed):
    library = [path for name in ("datasets", "models", "utils") for path in (ROOT / name).rglob("*.*")]
    names = {path.relative_to(ROOT).as_posix() for path in library if "__pycache__" not in path.parts}
    names = {name for name in names if not name.startswith(("utils/sweep/", "utils/training/"))}
    names |= {f"scripts/{name}.py" for name in ("app", "calibrate", "export", "predict")}
    expected = {f"aand/{name}" for name in ("__init__.py", "__main__.py", *names)}
    assert {name for name in contents(installed.wheel) if ".dist-info/" not in name} == expected


def test_the_source_archive_builds_the_same_wheel(installed, tmp_path):
    shutil.unpack_archive(installed.sdist, tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert not [name for name in names if re.search("tests|benchmarks|docs|training|sweep", name)]
    build(tmp_path / installed.sdist.name.removesuffix(".tar.gz"), "wheel", tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    assert contents(wheel) == contents(installed.wheel)


def test_nothing_of_an_earlier_build_is_left(installed):
    stale = installed.folder / "tree/build/lib/aand/utils/gone.py"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.touch()
    before = contents(installed.wheel)
    build(installed.folder / "tree", "wheel", installed.folder / "again")
    assert contents(installed.folder / "again" / installed.wheel.name) == before


def test_requirements_are_those_of_the_files(installed):
    [metadata] = [text for name, text in contents(installed.wheel).items() if name.endswith("/METADATA")]
    lines = message_from_bytes(metadata).get_all("Requires-Dist")
    by_extra = {extra: {line.partition(";")[0] for line in lines if line.endswith(f'"{extra}"')}
                for extra in ("torch", "deploy", "app")}
    core, deploy = (set((ROOT / f"requirements{name}.txt").read_text().split()) for name in ("", "-deploy"))
    gradio = {line for line in deploy if line.startswith("gradio")}
    assert by_extra == {"torch": core, "deploy": deploy, "app": gradio}
    base = {line for line in lines if "extra" not in line}
    assert base < core | deploy
    names = {re.match(r"[\w-]+", line)[0] for line in base}
    assert names == {"numpy", "opencv-python-headless", "pillow", "msgspec", "tqdm", "jinja2", "onnxruntime"}


def test_every_import_of_ours_is_in_the_wheel(installed):
    files = contents(installed.wheel)
    known = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files} | {"aand.scripts"}
    for name, source in files.items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(source)):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                top = module.partition(".")[0]
                assert top not in NAMESAKES and (top != "aand" or module in known), f"{name} imports {module}"


def test_every_module_imports_beside_packages_of_the_same_names(installed):
    done = installed.call("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_run_is_exported_and_its_file_used_where_there_is_no_torch(installed):
    made = installed.call("export", "part", "--format", "onnx", "--output", "part.onnx")
    assert made.returncode == 0 and made.stdout.startswith("wrote part.onnx ("), made.stderr
    flags = ("part.onnx", "photo.png", "--threshold", "0.5", "--workers", "1")
    done = installed.call("predict", *flags, "--save_maps", "maps", "--report", "page.html", absent=True)
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "maps/photo.png.png").is_file()
    assert '"AAND, scripts/predict.py' in (installed.folder / "page.html").read_text()
    expected = run_process(installed.folder, "scripts/predict.py", *flags, "--report", "page.html")  # may replace it
    assert expected.status == 0, expected.err
    assert done.stdout == expected.out != ""


def test_the_library_is_imported_when_it_is_asked_for(installed):
    code = """
import sys, aand
assert "numpy" not in sys.modules
from aand import *
assert load_detector is aand.utils.detection.load_detector and "torch" not in sys.modules
assert sys.excepthook is sys.__excepthook__
aand.fit"""
    done = installed.call("-c", code)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'aand' has no attribute 'fit'"


def test_errors_and_advice_name_the_command(installed):
    done = installed.call("predict", "part", "photo.png", "--workers", "1")
    assert "set them with: aand calibrate part --images DIR\n" in done.stderr
    for program in ("predict", "app"):
        done = installed.call(program, "part", *["photo.png"] * (program == "predict"), absent=True)
        assert done.returncode == 2
        assert re.fullmatch("error: .*: pip install 'aand\\[(torch|deploy)\\]'.*\n", done.stderr), done.stderr
    done = installed.call("app", "part", "--port", "x")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "aand app: error: argument --port: 'x' is not a whole number"


def test_help_is_that_of_the_programs(installed):
    done = installed.call("--help")
    assert re.findall(r"(?m)^    (\w+)", done.stdout) == ["app", "calibrate", "export", "predict"]
    assert re.fullmatch(r"aand 0\.\d+\.\d+\n", installed.call("--version").stdout)
    for program in ("app", "calibrate", "export", "predict"):
        helped = installed.call(program, "--help").stdout
        assert helped.startswith(f"usage: aand {program} ") and f"\n    aand {program} runs/NAME" in helped
        assert set(re.findall(r"\S+\.py\b", helped)) == {"train.py"}
        of_script = run_process(installed.folder, f"scripts/{program}.py", "--help").out
        assert set(re.findall(r"--\w+", helped)) == set(re.findall(r"--\w+", of_script)) != set()


def test_a_wrong_command_names_the_right_ones(installed):
    for words in ((), ("train",)):
        done = installed.call(*words, absent=True) if words else installed.call("--", absent=True)
        assert done.returncode == 2 and "COMMAND" in done.stderr.splitlines()[-1]


def test_an_editable_installation_is_refused(installed):
    said = build(installed.folder / "tree", "editable", installed.folder / "editable")
    assert "aand cannot be installed with -e; run the programs as they are: python scripts/predict.py" in said
    assert not list((installed.folder / "editable").iterdir())


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("aand_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("source", "expected"), [
    ("from utils.cli import share", "from aand.utils.cli import share"),
    ("from datasets import (\n    base,\n)", "from aand.datasets import (\n    base,\n)"),
    ("import os, utils.a as b, models.c as d", "import os, aand.utils.a as b, aand.models.c as d"),
    ("def f():\n    'é'; from utils import x", "def f():\n    'é'; from aand.utils import x"),
    ("from .utils import x\nfrom utility import y", "from .utils import x\nfrom utility import y"),
    ("models = {}\nmodels.get('utils.cli')", "models = {}\nmodels.get('utils.cli')"),
    ("import sys\nsys.path.insert(0, 'x')\nx = 1", "import sys\n\nx = 1"),
    ("a = f'{b}: python scripts/app.py {c}'", "a = f'{b}: aand app {c}'"),
    ("a = 'scripts/app.py, scripts/apps.py, scripts/sweep.py'", "a = 'aand app, scripts/apps.py, scripts/sweep.py'"),
    ("MARK = b'scripts/predict.py'  # of files", "MARK = b'scripts/predict.py'  # of files"),
    ('a = "pip install -r requirements-deploy.txt"', "a = \"pip install 'aand[deploy]'\""),
])
def test_a_module_is_changed_for_its_place(setup, source, expected):
    assert setup.moved(source.encode(), "x.py").decode() == expected


def test_an_import_that_would_define_another_name_is_refused(setup):
    with pytest.raises(SetupError, match=r"^x\.py:2 imports utils\.cli and uses utils; import it by from$"):
        setup.moved(b"\nimport utils.cli\nutils.cli.share", "x.py")
