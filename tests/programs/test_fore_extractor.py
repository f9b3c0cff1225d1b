"""scripts/fore_extractor.py on generated trees: which masks it writes, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import foreground
from datasets.base import load_mask
from datasets.foreground import foreground_mask, foreground_of, rule_for

ROOT = Path(__file__).parents[2]


def _square(background, inside):
    image = np.full((160, 160, 3), background, np.uint8)
    image[40:120, 40:120] = inside
    return image


def _save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _tree(root, *categories):
    for category in categories:
        for index in range(3):
            _save(root / category / f"train/good/{index:03}.png", _square(20, 60 + 40 * index))
        _save(root / category / "test/good/000.png", _square(20, 20))
        _save(root / category / "test/crack/000.png", _square(20, 20))
        _save(root / category / "ground_truth/crack/000_mask.png", np.eye(160, dtype=np.uint8) * 255)
    return root


def _extract(cwd, *arguments):
    command = [sys.executable, ROOT / "scripts/fore_extractor.py", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=120)


def test_command_writes_every_training_mask(tmp_path, monkeypatch):
    data = _tree(tmp_path / "data", "bottle", "pill", "screw")
    result = _extract(tmp_path, "--data_path", data, "--aux_path", "no/such/place", "--categories", "bottle", "pill")
    assert result.returncode == 0, result.stderr
    written = sorted(p.relative_to(tmp_path) for p in (tmp_path / "fg_mask").rglob("*") if p.is_file())
    assert written == [Path(f"fg_mask/mvtec/{c}/train/{i:03}.png") for c in ("bottle", "pill") for i in range(3)]
    for path in written:
        image = _square(20, 60 + 40 * int(path.stem))
        expected = foreground_mask(image, rule_for("mvtec", path.parts[2]))
        assert np.asarray(Image.open(tmp_path / path)).tolist() == (expected * 255).tolist()
        image_path = data / path.parts[2] / "train/good" / path.name
        with monkeypatch.context() as patch:
            patch.setattr(foreground, "foreground_mask", None)  # the mask is read, not made
            found = foreground_of(image_path, "mvtec", path.parts[2], tmp_path / "fg_mask", image)
        np.testing.assert_array_equal(found, expected)


def test_command_on_a_plain_folder(tmp_path):
    data = _tree(tmp_path / "data", "parts")
    result = _extract(tmp_path, "--data_path", data, "--output", tmp_path / "out", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert load_mask(tmp_path / "out/folder/parts/train/002.png").mean() == pytest.approx(0.25, abs=0.03)
    assert not (tmp_path / "fg_mask").exists()


def test_command_errors_are_one_line(tmp_path):
    data = _tree(tmp_path / "data", "bottle")
    wrong_root = _extract(tmp_path, "--data_path", tmp_path / "nowhere")
    wrong_category = _extract(tmp_path, "--data_path", data, "--categories", "spoon")
    (data / "bottle/train/good/001.png").write_text("not an image")
    unreadable = _extract(tmp_path, "--data_path", data)
    for result, names in ((wrong_root, "nowhere"), (wrong_category, "spoon"), (unreadable, "001.png")):
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert names in last
    assert _extract(tmp_path, "--data_path", data, "--workers", "0").returncode == 2
    assert not list(tmp_path.rglob("*.tmp"))
