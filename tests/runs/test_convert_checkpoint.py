"""scripts/convert_checkpoint.py: official files into a run folder and back, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from models.official import load_official
from tests.support.golden import array, official_part
from utils.runs.folder import Run, trained_categories

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "convert_checkpoint.py"


def convert(*flags: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, flags)], capture_output=True, text=True, check=False)


def test_official_files_become_a_run_and_come_back(tmp_path):
    stage1, stage2, run, back = (tmp_path / name for name in ("a.pth", "b.pth", "run", "back"))
    torch.save({"encoder_AT": official_part("encoder_AT")}, stage1)
    torch.save({part: official_part(part) for part in ("bn", "decoder_ss")}, stage2)
    common = ("--run", run, "--category", "bottle")
    layout = ("--dataset", "mvtec", "--data_root", tmp_path, "--image_size", 64)
    done = convert("from_official", "--stage1", stage1, "--stage2", stage2, *layout, *common)
    assert done.returncode == 0, done.stderr
    assert trained_categories(run) == ["bottle"]

    model, _ = Run(run).category("bottle").load_model()
    images = array(0, (1, 3, 64, 64))
    with torch.inference_mode():
        assert torch.equal(model(images)[0], load_official(stage1, stage2)(images)[0])

    done = convert("to_official", "--output", back, *common)
    assert done.returncode == 0, done.stderr
    for original, returned in ((stage1, back / "stage1.pth"), (stage2, back / "stage2.pth")):
        before, after = torch.load(original), torch.load(returned)
        assert before.keys() == after.keys()
        for part, tensors in before.items():
            assert tensors.keys() == after[part].keys()
            assert all(torch.equal(tensor, after[part][name]) for name, tensor in tensors.items())


def test_a_foreign_file_is_one_line_of_error(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    flags = ("--stage1", tmp_path / "x.pth", "--stage2", tmp_path / "x.pth", "--dataset", "mvtec")
    done = convert("from_official", *flags, "--data_root", tmp_path, "--run", tmp_path / "run", "--category", "bottle")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
