"""Runs, results, exports and data sets: no program overwrites or deletes a file that it did not write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets.base import load_image, load_mask
from datasets.foreground import foreground_mask, rule_for
from datasets.marks import DEMO, FOREGROUND, HEAT_MAP, mark_of, png_bytes
from scripts import fore_extractor, make_demo_data
from tests.support.commands import (
    OWN,
    ROOT,
    run_compare,
    run_convert,
    run_export,
    run_report,
    run_test,
    run_train,
)
from tests.support.foreign import refused
from tests.support.trees import make_mvtec, make_visa
from utils.runs.resuming import lock_run
from utils.system.errors import RunError, UsageError
from utils.system.own_files import (
    COMPARISON,
    PREDICTIONS,
    RESULTS_CSV,
    RESULTS_JSON,
    SCORES_CSV,
    begins_as,
    is_export,
    may_be_replaced,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# test.py, report.py, compare.py, export.py


@pytest.mark.parametrize(("pattern", "content"), [
    (PREDICTIONS[".csv"], b"path,score,p_value,mine\n"),
    (PREDICTIONS[".jsonl"], b'{"path": "photo.jpg", "label": 1}\n'),
    (COMPARISON[".json"], b'{"seeds": [1, 2, 3]}'), (COMPARISON[".json"], b'{"seeds": {"a": 1}, "lots": {}}'),
    (COMPARISON[".csv"], b"category,metric,run,mine\n"), (RESULTS_CSV, b"category,price\n"),
    (RESULTS_JSON, b'{"categories": [{"id": 1, "name": "bolt"}], "images": []}'), (SCORES_CSV, b"path,category,mine\n"),
])
def test_lists_of_others_that_begin_nearly_so_are_not_ours(tmp_path, pattern, content):
    """A list of image files, seeds, a price list, the annotations of COCO."""
    (tmp_path / "f").write_bytes(content)
    assert not may_be_replaced(tmp_path / "f", begins_as(pattern))


@pytest.mark.parametrize("name", ["results.csv", "results.json", "results_native.csv", "maps/widget/good/000.png"])
def test_results_of_others_stay(own, run, tmp_path, foreign, name):
    target = foreign(run / name)
    refused(run_test(tmp_path, "--data_root", own.data, "--run", run, "--save_maps"), target)
    assert [path.name for path in run.glob("results*")] == [name for name in [name] if "maps" not in name]


def test_results_and_maps_of_ours_are_replaced(own, run, tmp_path):
    flags = ("--data_root", own.data, "--run", run, "--save_maps", "--mvtec_maps", tmp_path / "tiffs")
    assert run_test(tmp_path, *flags).status == 0
    heat_map = run / "maps/widget/good/000.png"
    Image.open(heat_map).convert("RGB").save(heat_map, pnginfo=None)  # as earlier versions wrote it
    assert mark_of(heat_map) is None
    (run / "results.csv").write_text("")
    assert run_test(tmp_path, *flags).status == 0
    assert mark_of(heat_map) == HEAT_MAP and (run / "results.csv").read_text().startswith("category,")


def test_maps_for_mvtec_never_go_among_the_images(own, run, tmp_path, foreign):
    data = tmp_path / "data"
    shutil.copytree(own.data, data)
    (tmp_path / "link").symlink_to(data)
    for folder in (data, tmp_path / "link"):
        result = run_test(tmp_path, "--data_root", data, "--run", run, "--mvtec_maps", folder)
        assert result.status == 2 and "would lie among the images of the data set" in result.errors[0]
    target = foreign(tmp_path / "tiffs/widget/test/good/000.tiff")
    refused(run_test(tmp_path, "--data_root", data, "--run", run, "--mvtec_maps", tmp_path / "tiffs"), target)
    assert not list(data.rglob("*.tiff")) and not (run / "results.json").exists()


def test_reports_and_comparisons_go_over_their_own_alone(own, run, tmp_path, foreign):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    for folder in (run, other):
        assert run_test(tmp_path, "--data_root", own.data, "--run", folder).status == 0
    refused(run_report(tmp_path, run, "--output", foreign(tmp_path / "f.html")), tmp_path / "f.html")
    assert [run_report(tmp_path, run).status for _ in range(2)] == [0, 0]
    for name in ("a.md", "a.csv", "a.json"):
        refused(run_compare(tmp_path, run, other, "--output", foreign(tmp_path / "f" / name)), tmp_path / "f" / name)
        assert [run_compare(tmp_path, run, other, "--output", name).status for _ in range(2)] == [0, 0]


def test_exports_go_over_exports_alone(run, models, tmp_path, foreign):
    flags = (run, "--category", "widget", "--output")
    for kind, name in (("torchscript", "a.pt"), ("pt2", "a.pt2"), ("openvino", "a.xml"), ("onnx", "a.onnx")):
        target = foreign(tmp_path / "f" / name)
        refused(run_export(tmp_path, *flags, target, "--format", kind), target)
    assert [run_export(tmp_path, *flags, "a.pt", "--format", "torchscript").status for _ in range(2)] == [0, 0]
    assert all(is_export(path) for path in models.values()) and not is_export(run / "checkpoints/teacher.pt")
    weights = foreign(tmp_path / "g/a.bin")
    refused(run_export(tmp_path, *flags, tmp_path / "g/a.xml", "--format", "openvino"), weights)
    refused(run_convert(tmp_path, "to_official", "--run", run, "--category", "widget", "--output",
                        foreign(tmp_path / "h/stage1.pth").parent), tmp_path / "h/stage1.pth")


# Runs


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "checkpoints/teacher.pt", ".lock"])
def test_a_folder_that_no_run_wrote_is_not_trained_in(own, tmp_path, foreign, name):
    target = foreign(tmp_path / "out" / name)
    kept = foreign(tmp_path / "out/.notes.20240131aabb.txt")
    result = run_train(tmp_path, "--data_root", own.data, *OWN, "--output", "out")
    assert result.status == 2 and name.partition("/")[0] in result.errors[0]
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == {target, kept}


def test_only_temporaries_of_ours_are_cleared_away(run, tmp_path, foreign):
    twelve = "0123456789ab"
    foreign(run / f".notes.{twelve}.txt")
    foreign(run / f"docs/.config.{twelve}.json")
    foreign(run / f"docs/.aand-{twelve}.tmp.json")
    foreign(tmp_path / f"far/.aand-{twelve}.tmp.pt")
    (run / "checkpoints/link").symlink_to(tmp_path / "far")
    ours = [f".config.{twelve}.json", f".aand-{twelve}.tmp.json", f"checkpoints/widget/.stage2.progress.{twelve}.pt",
            f"checkpoints/widget/.aand-{twelve}.tmp.pt", f"maps/a/.aand-{twelve}.tmp.png"]
    for name in ours:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    with lock_run(run):
        assert not any((run / name).exists() for name in ours)


def test_a_folder_that_is_no_run_keeps_everything(tmp_path, foreign):
    twelve = "0123456789ab"
    for name in (f".config.{twelve}.json", f"checkpoints/.stage1.{twelve}.pt", f"deep/.a.{twelve}"):
        foreign(tmp_path / "home" / name)
    with lock_run(tmp_path / "home"):
        pass
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.lock").touch()
    with lock_run(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty/.lock").is_file()
    foreign(tmp_path / "locked/.lock")
    with pytest.raises(RunError, match="is no lock of train.py"), lock_run(tmp_path / "locked"):
        pytest.fail("the block was entered")


# Data sets


def test_foreground_masks_of_others_stay(tmp_path, foreign, monkeypatch):
    data = make_mvtec(tmp_path / "data", ["part"], train=3)
    folder = tmp_path / "fg/folder/part/train"
    flags = ["--data_path", str(data), "--output", str(tmp_path / "fg"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    fore_extractor.main()
    path = folder / "000.png"
    mask = load_mask(path)
    assert mark_of(path) == FOREGROUND
    Image.fromarray(mask * np.uint8(255)).save(path)  # as earlier versions wrote it
    fore_extractor.main()
    assert mark_of(path) == FOREGROUND and np.array_equal(load_mask(path), mask)
    drawn = foreground_mask(load_image(data / "part/train/good/001.png"), rule_for("folder", "part")) * np.uint8(255)
    drawn[0, 0] = 255 - drawn[0, 0]
    others = [png_bytes(drawn, "GIMP"), png_bytes(np.full((32, 32, 3), 255, np.uint8), "a photograph"), b"a note"]
    (folder / "002.png").unlink()
    for content in others:
        foreign(folder / "001.png", content)
        with pytest.raises(UsageError, match="001.png is there already"):
            fore_extractor.main()
        assert (folder / "001.png").read_bytes() == content and not (folder / "002.png").exists()


def test_a_demo_goes_over_its_own_alone(tmp_path, foreign, monkeypatch):
    small = ["--size", "32", "--train", "1", "--test_good", "1", "--test_defective", "1"]
    monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path), *small])
    make_demo_data.main()
    [path] = (tmp_path / "brick/train/good").iterdir()
    assert mark_of(path) == DEMO and load_image(path).shape == (32, 32, 3)
    make_demo_data.main()
    foreign(path, b"a photograph")
    with pytest.raises(UsageError, match="is there already"):
        make_demo_data.main()


def test_a_list_of_others_stays(tmp_path, foreign):
    def write_meta():
        command = [sys.executable, ROOT / "scripts/visa_meta.py", "--data_root", tmp_path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    make_visa(tmp_path, train=2, good=1, anomalies=1)
    assert [write_meta().returncode for _ in range(2)] == [0, 0]
    content = json.loads((tmp_path / "meta.json").read_text())
    content["test"]["candle"].pop()
    for other in (json.dumps(content), "my notes", "[1]"):
        foreign(tmp_path / "meta.json", other.encode())
        done = write_meta()
        assert done.returncode == 2 and "meta.json is there already" in done.stderr
