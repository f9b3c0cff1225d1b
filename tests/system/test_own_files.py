"""No program overwrites or deletes a file that it did not write, and none takes its own pictures for photographs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError, load_image, load_mask
from datasets.foreground import foreground_mask, rule_for
from datasets.marks import ANOMALY_MAP, DEMO, FOREGROUND, HEAT_MAP, mark_of, png_bytes, tiff_bytes
from scripts import fore_extractor, make_demo_data
from tests.support.commands import (
    OWN,
    ROOT,
    run_check,
    run_compare,
    run_convert,
    run_export,
    run_predict,
    run_report,
    run_test,
    run_train,
)
from tests.support.trees import good_image, make_mvtec, make_visa, write_image
from utils.detection.output import map_paths
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
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture
def foreign(tmp_path):
    """foreign(path) puts a file of someone else there; at the end it must be as it was."""
    written = {}

    def write(path, content=b"of someone else"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written[path] = content
        return path

    yield write
    for path, content in written.items():
        assert path.read_bytes() == content, path


def refused(result, path):
    assert result.status == 2 and len(result.errors) == 1, result.err
    assert f"{path} is there already, and no file that this program wrote" in result.errors[0]


@pytest.fixture
def run(own, tmp_path):
    """A run folder that may be changed, and a working folder."""
    shutil.copytree(own.run, tmp_path / "run")
    return tmp_path / "run"


# Marks


def test_marks_are_metadata_and_change_no_pixel(tmp_path):
    grey, values = PIXELS[..., 0].copy(), np.float32([[0.5, -2], [3, 1e6]])
    files = {
        HEAT_MAP: (png_bytes(PIXELS, HEAT_MAP), PIXELS), FOREGROUND: (png_bytes(grey, FOREGROUND), grey),
        ANOMALY_MAP: (tiff_bytes(values, ANOMALY_MAP), values),
    }
    for mark, (content, pixels) in files.items():
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # checks the chunks' sums
            software = image.tag_v2[305] if image.format == "TIFF" else image.text["Software"]
            assert software == mark and np.array_equal(np.asarray(image), pixels)
        (tmp_path / "a").write_bytes(content)
        assert mark_of(tmp_path / "a") == mark
        if mark != ANOMALY_MAP:
            with pytest.raises(DataError, match=f"no photograph but an {mark}"):
                load_image(tmp_path / "a")


def test_other_pictures_have_no_mark(tmp_path):
    write_image(tmp_path / "a.png", PIXELS)
    write_image(tmp_path / "a.tif", PIXELS)
    (tmp_path / "text.png").write_text(f"tEXtSoftware {HEAT_MAP}")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert {mark_of(path) for path in (*tmp_path.iterdir(), tmp_path / "absent.png")} == {None}


# predict.py


def test_heat_maps_are_left_out_of_folders_and_refused_by_name(own, tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"in/{name}.png", good_image(np.random.default_rng(3), 64))
    calls = [run_predict(tmp_path, own.run, "in", "--save_maps", "in/maps") for _ in range(2)]
    assert [result.status for result in calls] == [0, 0] and calls[0].out == calls[1].out
    assert "left out" not in calls[0].err and "left out: 2 pictures that this program wrote" in calls[1].err
    result = run_predict(tmp_path, own.run, "in/*.png", "in/maps/a.png.png", "--output", "out.jsonl")
    records = {line["path"]: line for line in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert result.status == 1 and list(records) == ["in/a.png", "in/b.png", "in/maps/a.png.png"]
    assert "no photograph but an AAND heat map" in records["in/maps/a.png.png"]["error"]
    result = run_predict(tmp_path, own.run, "in/maps")
    assert result.status == 2 and "AAND heat map that this program wrote, and there are no other images" in result.err


def test_heat_maps_among_the_data_are_errors(own, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(own.data, data)
    (data / "widget/train/good/map.png").write_bytes(png_bytes(np.zeros((64, 64, 3), np.uint8), HEAT_MAP))
    result = run_check(tmp_path, "--data_root", data)
    assert result.status == 1 and "train/good/map.png (it is no photograph but an AAND heat map" in result.out


def test_predictions_go_over_predictions_alone(own, tmp_path, foreign):
    image = write_image(tmp_path / "in/a.png", good_image(np.random.default_rng(3), 64))
    for name in ("out.csv", "out.jsonl"):
        target = foreign(tmp_path / f"foreign/{name}", b"date,amount\n1,2\n")
        refused(run_predict(tmp_path, own.run, image, "--output", target), target)
        (tmp_path / name).touch()
        before = run_predict(tmp_path, own.run, image, "--output", name)
        text = (tmp_path / name).read_text()
        assert before.status == 0 and "a.png" in text
        assert run_predict(tmp_path, own.run, image, "--output", name).status == 0
        assert (tmp_path / name).read_text() == text
    (tmp_path / "folder.csv").mkdir()
    refused(run_predict(tmp_path, own.run, image, "--output", "folder.csv"), "folder.csv")


def test_maps_go_over_maps_alone(own, tmp_path, foreign):
    pixels = good_image(np.random.default_rng(3), 64)
    image = write_image(tmp_path / "in/a.png", pixels)
    photograph = foreign(tmp_path / "other/a.png.png", image.read_bytes())
    refused(run_predict(tmp_path, own.run, image, "--save_maps", "other"), "other/a.png.png")
    result = run_predict(tmp_path, own.run, image, photograph, "--save_maps", "other")
    assert result.status == 0  # the common folder is another: the names are too
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png.png").symlink_to(photograph)
    refused(run_predict(tmp_path, own.run, image, "--save_maps", "links"), "links/a.png.png")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/a.png.png").symlink_to("nowhere")
    refused(run_predict(tmp_path, own.run, image, "--save_maps", "loose"), "loose/a.png.png")
    assert not (tmp_path / "loose/nowhere").exists()


def test_an_image_is_never_its_own_output(own, tmp_path, foreign):
    content = io.BytesIO()
    Image.fromarray(good_image(np.random.default_rng(3), 64)).save(content, "PNG")
    image, other = (foreign(tmp_path / name, content.getvalue()) for name in ("a.png", "a.png.png"))
    result = run_predict(tmp_path, own.run, image, other, "--save_maps", tmp_path)
    assert result.status == 2 and f"{other} is one of the images" in result.errors[0]
    linked = tmp_path / "out.csv"
    linked.symlink_to(image)
    result = run_predict(tmp_path, own.run, image, "--output", linked)
    assert result.status == 2 and f"{linked} is one of the images" in result.errors[0]


# Names of maps


def test_names_of_maps_fit_and_differ(tmp_path):
    long = "x" * 300 + ".png"
    names = ["a/b.png", "a/B.png", "a/b.png", long, "y" + long, "caf\u00e9.png", "cafe\u0301.png"]
    names.append("\u00fc" * 200 + ".tiff")
    paths = map_paths(tmp_path, names)
    assert paths[0] == tmp_path / "a/b.png" and paths[5] == tmp_path / "caf\u00e9.png"
    assert len({str(path).casefold() for path in paths}) == len(names)
    assert [path.suffix for path in paths] == [".png"] * 7 + [".tiff"]
    assert map_paths(tmp_path, names) == paths
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch(exist_ok=False)


def test_a_map_that_cannot_be_written_is_its_images_error(own, tmp_path):
    pixels = good_image(np.random.default_rng(3), 64)
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"in/{name}/x.png", pixels)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/b").write_text("a file where a folder should be")
    result = run_predict(tmp_path, own.run, "in", "--save_maps", "maps", "--output", "out.jsonl")
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert result.status == 1 and len({record["score"] for record in records}) == 1
    assert [bool(record["error"]) for record in records] == [False, True, False]
    assert "cannot write maps/b/x.png.png" in result.errors[0] and "1 heat map could not be written" in result.err
    assert (tmp_path / "maps/c/x.png.png").is_file()


def test_scoring_goes_on_without_a_map(own, run, tmp_path):
    (run / "maps/widget").mkdir(parents=True)
    (run / "maps/widget/crack").write_text("")
    (tmp_path / "tiffs/widget/test").mkdir(parents=True)
    (tmp_path / "tiffs/widget/test/hole").write_text("")
    flags = ("--data_root", own.data, "--run", run, "--save_maps", "--mvtec_maps", tmp_path / "tiffs")
    result = run_test(tmp_path, *flags)
    assert result.status == 1 and len(result.errors) == 3  # two of crack, one of hole
    assert len(list((run / "maps").rglob("*.png"))) == 3 and len(list((tmp_path / "tiffs").rglob("*.tiff"))) == 4
    assert (run / "results.json").is_file()


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
