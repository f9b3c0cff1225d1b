"""Programs where a package is missing: one line that names it and how to get it, exit status 2, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

# None in sys.modules makes an import fail as that of a package that is not installed:
WITHOUT = """
import os, runpy, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
del sys.argv[:2]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FOR_ONNX = "torch,torchvision,timm,skimage,sklearn,scipy,filelock,psutil,onnx,onnxscript,openvino,gradio,ray,fsspec"
CORE, DEPLOY, CLUSTER = (f"pip install -r requirements{name}.txt" for name in ("", "-deploy", "-cluster"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with data/ and run/, which are looked at before anything of them is loaded."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "data").mkdir()
    (folder / "run/checkpoints/part").mkdir(parents=True)
    (folder / "run/checkpoints/part/stage2.pt").touch()
    names = ("method", "backbone", "image_size", "dataset", "data_root", "command", "started")
    values = ("aand", "resnet18", 64, "folder", "data", "train.py", "2024-01-01T00:00:00")
    (folder / "run/config.json").write_text(json.dumps(dict(zip(names, values, strict=True))))
    return folder


def run_without(folder, packages, command):
    program, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, ROOT / program, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 2, done.stderr
    notices = ("warning: ", "passed over as no images: ")  # of calibrate.py, which looks at images before at the model
    [line] = [line for line in done.stderr.splitlines() if not line.startswith(notices)]
    return line


@pytest.mark.parametrize(
    ("package", "command", "how"),
    [
        ("numpy", "train.py --data_root data", CORE),
        ("torch", "train.py --data_root data", CORE),
        ("filelock", "train.py --data_root data", CORE),
        ("torch", "test.py --data_root data --run run", CORE),
        ("torch", "scripts/report.py run", CORE),
        ("torch", "scripts/export.py run --category part --format onnx", CORE),
        ("torch", "scripts/convert_checkpoint.py to_official --run run --category part --output out", CORE),
        ("cv2", "scripts/predict.py run x.png", CORE),
        ("tqdm", "scripts/fore_extractor.py --data_path data", CORE),
        ("PIL", "scripts/check_data.py --data_root data", CORE),
        ("numpy", "scripts/visa_meta.py --data_root data", CORE),
        ("sklearn", "scripts/compare.py run run", ""),
        ("skimage", "scripts/make_demo_data.py --output out", CORE),
        ("filelock", "scripts/sweep.py --data_root data --store store", CORE),
        ("fsspec", "scripts/sweep.py --data_root data --store store", CLUSTER),
        ("fsspec", "scripts/fetch_runs.py --store store --output out", CLUSTER),
        ("gradio", "scripts/app.py run --port 0", DEPLOY),
        ("torch", "scripts/app.py run --port 0", CORE),
    ],
)
def test_the_package_and_how_to_get_it_are_named(folder, package, command, how):
    line = run_without(folder, package, command)
    assert line.startswith("error: ")
    if how:
        assert f" {package}" in line and how in line


@pytest.mark.parametrize("program", ["scripts/predict.py run x.png", "scripts/calibrate.py run --far 0.6 --images run"])
def test_a_run_folder_needs_torch_and_a_model_file_does_not(folder, program):
    (folder / "run/x.png").touch()
    line = run_without(folder, FOR_ONNX, program)
    assert line.startswith("error: run, a run folder, needs the package torch: pip install -r requirements.txt, or ")
    assert "an .onnx or .xml file" in line
    line = run_without(folder, FOR_ONNX, "scripts/predict.py gone x.png")
    assert line.startswith("error: gone is not a run folder")
