"""scripts/predict.py over many files: formats, broken ones, what is written and where."""

from __future__ import annotations

import csv
import html
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import ROOT, Result, run_predict, scores_of
from tests.support.trees import good_image, write_image
from utils.data.finding import find_images
from utils.detection.output import picture_targets
from utils.detection.pictures import HEAT_MAPS, MASKS, RAW_MAPS
from utils.detection.thresholds import read_thresholds
from utils.system.files import read_ahead

pytestmark = pytest.mark.usefixtures("one_thread")
ORIENTATION = 0x0112  # the EXIF tag


def write_photos(folder: Path) -> list[Path]:
    """200 images of all formats, modes and several sizes in nested folders, and 5 broken files, which are returned."""
    rng = np.random.default_rng(7)
    sizes = [(40, 40), (64, 64), (50, 90), (97, 33), (128, 200)]
    for number in range(200):
        height, width = sizes[number % 5]
        pixels = np.asarray(Image.fromarray(good_image(rng, 64)).resize((width, height)))
        image, suffix = Image.fromarray(pixels), (".png", ".jpg", ".bmp", ".tif", ".webp")[number // 5 % 5]
        kind = number % 7
        if kind == 1:
            image = image.convert("L")
        elif kind == 2 and suffix != ".jpg":
            image = image.convert("RGBA")
        elif kind == 3 and suffix in (".png", ".bmp", ".tif"):
            image = image.convert("P")
        elif kind == 4 and suffix in (".png", ".tif"):
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        exif = Image.Exif()
        if kind == 5 and suffix in (".jpg", ".webp", ".png"):
            exif[ORIENTATION] = 6
        path = folder / f"lot{number % 3}/{number % 40:03d}-{number // 40}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **({"exif": exif} if kind == 5 and len(exif) else {}))
    broken = [folder / f"lot{number}/bad.png" for number in range(3)] + [folder / "empty.jpg", folder / "cut.png"]
    for path in broken[:3]:
        path.write_bytes(b"no image at all")
    broken[3].write_bytes(b"")
    broken[4].write_bytes((folder / "lot0/000-0.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("not an image")
    return sorted(broken)


@dataclass(frozen=True)
class Predicted:
    result: Result
    csv: Path
    jsonl: Path
    broken: list[Path]


@pytest.fixture(scope="module")
def predicted(own) -> Predicted:
    """200 images and 5 broken ones in photos/, predicted in both formats."""
    broken, names = write_photos(own.cwd / "photos"), ("out/a.csv", "out/a.jsonl")
    [result, _] = [run_predict(own.cwd, "run", "photos", "--output", name) for name in names]
    return Predicted(result, own.cwd / names[0], own.cwd / names[1], broken)


def test_every_file_is_predicted_and_bad_ones_are_named(own, predicted):
    result, path = predicted.result, predicted.csv
    assert result.status == 1 and result.out == ""
    assert "200 images scored" in result.err and "5 could not be used" in result.err and "images/s" in result.err
    assert len(result.errors) == 5 and all(str(p.relative_to(own.cwd)) in result.err for p in predicted.broken)
    rows = list(csv.DictReader(path.open(newline="")))
    assert len(rows) == 205 and sorted(own.cwd / row["path"] for row in rows if row["error"]) == predicted.broken
    empty = {row[name] for row in rows if row["error"] for name in ("score", "p_value", "anomalous", "regions")}
    assert empty == {""}


def test_scores_are_the_maxima_of_the_maps_of_test(own, predicted):
    rows = [row for row in csv.DictReader(predicted.csv.open(newline="")) if not row["error"]]
    expected = scores_of(own.run, "widget", [own.cwd / row["path"] for row in rows])
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, atol=1e-5)
    found = read_thresholds(own.run, "widget")
    assert [row["anomalous"] for row in rows] == [str(float(row["score"]) > found.image_threshold) for row in rows]
    assert {row["anomalous"] for row in rows} == {"True", "False"}
    assert all((float(row["p_value"]) <= 0.25) == (row["anomalous"] == "True") for row in rows)


def test_both_formats_say_the_same(predicted):
    rows = list(csv.DictReader(predicted.csv.open(newline="")))
    records = [json.loads(line) for line in predicted.jsonl.read_text().splitlines()]
    assert len(records) == len(rows) == 205
    for row, record in zip(rows, records, strict=True):
        assert list(record) == list(row) and (row["path"], row["error"]) == (record["path"], record["error"] or "")
        if not record["error"]:
            assert float(row["score"]) == record["score"] and row["anomalous"] == str(record["anomalous"])
            assert json.loads(row["regions"]) == record["regions"]
            assert bool(record["regions"]) == record["anomalous"]
            assert record["verdict"] == ("anomalous" if record["anomalous"] else "good")


def test_without_output_there_is_a_line_per_image(own):
    result = run_predict(own.cwd, "run", "photos/lot1/*-0.*", "--far", 0.4, "--category", "widget")
    names = [str(path.relative_to(own.cwd)) for path in sorted((own.cwd / "photos").glob("lot1/*-0.*"))]
    assert result.status == 0 and [line.split()[-1] for line in result.out.splitlines()] == names
    found = read_thresholds(own.run, "widget").at(0.4)
    words = {line.split()[0]: float(line.split()[1]) for line in result.out.splitlines()}
    assert words["anomalous"] > found.image_threshold - 1e-5


def test_images_to_look_at(own):
    result = run_predict(own.cwd, "run", "photos/lot0", "--far", 0.2, "--look", 0.6, "--output", "look.jsonl")
    records = [json.loads(line) for line in (own.cwd / "look.jsonl").read_text().splitlines()]
    records = [record for record in records if not record["error"]]
    for record in records:
        p_value = record["p_value"]
        assert record["verdict"] == ("anomalous" if p_value <= 0.2 else "look" if p_value <= 0.6 else "good")
        assert record["anomalous"] == (p_value <= 0.2)
        assert p_value > 0.6 or record["regions"]
    number = sum(record["verdict"] == "look" for record in records)
    assert number and f"{number} to look at" in result.err
    refused = run_predict(own.cwd, "run", "photos/lot0", "--far", 0.2, "--look", 0.1)
    assert refused.status == 2 and "--look 0.1 must be above --far 0.2" in refused.err


def test_a_threshold_of_ones_own(own):
    options = ("run", "photos/lot0", "--output", "own.jsonl", "--threshold")
    for threshold, expected in ((-5, True), (1e9, False)):
        run_predict(own.cwd, *options[:-1], f"--threshold={threshold}")
        records = [json.loads(line) for line in (own.cwd / "own.jsonl").read_text().splitlines()]
        assert {r["anomalous"] for r in records if not r["error"]} == {expected}


def test_heat_maps_have_the_images_size_and_names_that_do_not_collide(own, tmp_path):
    pixels = good_image(np.random.default_rng(1), 64)
    names = ["a/x.png", "a/x.jpg", "b/x.png"]
    for name in names:
        write_image(tmp_path / name, pixels[:40])
    result = run_predict(tmp_path, own.run, "a", "b", "a/x.png", "--save_maps", "maps", "--threshold=-5")
    assert result.status == 0 and len(result.out.splitlines()) == 3
    assert sorted(p.relative_to(tmp_path / "maps").as_posix() for p in (tmp_path / "maps").rglob("*.png")) == [
        "a/x.jpg.png", "a/x.png.png", "b/x.png.png"
    ]
    heat_map = np.asarray(Image.open(tmp_path / "maps/a/x.png.png"))
    assert heat_map.shape == (40, 128, 3)
    np.testing.assert_array_equal(heat_map[:, :64], pixels[:40])


def test_maps_as_numbers_and_masks_have_the_images_size(own, tmp_path):
    pixels = good_image(np.random.default_rng(1), 64)
    pixels[10:20, 30:50] = 255
    write_image(tmp_path / "in/x.png", pixels[:40])
    write_image(tmp_path / "in/y.png", good_image(np.random.default_rng(2), 64)[:40])
    folders = ["--maps_raw", "raw", "--masks", "masks"]
    scores = [json.loads(line)["score"] for line in _lines(tmp_path, own, "in", *folders)]
    threshold = sum(scores) / 2
    lines = [json.loads(line) for line in _lines(tmp_path, own, "in", *folders, f"--threshold={threshold}")]
    assert [line["verdict"] for line in lines] == ["anomalous", "good"]
    raw = np.asarray(Image.open(tmp_path / "raw/x.png.tiff"))
    assert raw.dtype == np.float32 and raw.shape == (40, 64)
    mask = np.asarray(Image.open(tmp_path / "masks/x.png.png"))
    np.testing.assert_array_equal(mask, np.where(raw > threshold, 255, 0))
    assert mask.any() and not np.asarray(Image.open(tmp_path / "masks/y.png.png")).any()
    again = run_predict(tmp_path, own.run, "in", "raw", "masks")
    assert again.status == 0 and "left out: 4 pictures that this program wrote" in again.err
    same = run_predict(tmp_path, own.run, "in", "--save_maps", "maps", "--masks", "maps")
    assert same.status == 2 and "choose a folder for each" in same.err


def test_a_page_of_the_highest_scores(own, tmp_path):
    for index in range(5):
        pixels = good_image(np.random.default_rng(index), 64)
        pixels[:10, : 10 * index] = 255
        write_image(tmp_path / f"in/<{index}>.png", pixels)
    (tmp_path / "in/bad&.png").write_bytes(b"no image")
    result = run_predict(tmp_path, own.run, "in", "--report", "page.html", "--report_images", 3, "--output", "all.csv")
    assert result.status == 1
    page, rows = (tmp_path / "page.html").read_text(), list(csv.DictReader((tmp_path / "all.csv").open()))
    scored = sorted((row for row in rows if not row["error"]), key=lambda row: -float(row["score"]))
    shown = re.findall(r'<span class="name">(.*?)</span>.*?<span class="verdict">(.*?)</span>', page)
    assert [name for name, _ in shown] == [html.escape(row["path"]) for row in scored[:3]]
    assert [word.split()[-1] for _, word in shown] == [row["verdict"] for row in scored[:3]]
    assert "The 3 highest of 5." in page and "cannot read image in/bad&amp;.png" in page
    assert len(re.findall("data:image/jpeg;base64,", page)) == 6 and "http" not in page.replace("http-equiv", "")
    assert str(read_thresholds(own.run, "widget")) in html.unescape(page)
    again = run_predict(tmp_path, own.run, "in/<0>.png", "--report", "page.html")
    assert again.status == 0 and "The 3 highest" not in (tmp_path / "page.html").read_text()
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    refused = run_predict(tmp_path, own.run, "in/<0>.png", "--report", "mine.html")
    assert refused.status == 2 and "give another --report" in refused.err


def _lines(cwd, own, *arguments):
    result = run_predict(cwd, own.run, *arguments, "--output", "found.jsonl")
    assert result.status == 0, result.err
    return (cwd / "found.jsonl").read_text().splitlines()


def test_one_image_alone_has_a_map_named_like_it(tmp_path):
    path = tmp_path / "deep/x.png"
    folders = {HEAT_MAPS: Path("maps"), RAW_MAPS: None, MASKS: Path("masks")}
    assert picture_targets([path], folders) == {
        HEAT_MAPS: {path: Path("maps/x.png.png")}, MASKS: {path: Path("masks/x.png.png")}
    }


def test_a_folder_is_watched_until_the_program_is_stopped(own, tmp_path):
    (tmp_path / "in").mkdir()
    arguments = ["scripts/predict.py", own.run, "--watch", "in", "--output", "found.jsonl", "--device", "cpu"]
    program = [sys.executable, ROOT / arguments[0], *arguments[1:]]
    with subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "watching in; Ctrl-C ends it\n"
        write_image(tmp_path / "in/x.png", good_image(np.random.default_rng(1), 64))
        for _ in range(600):
            if (tmp_path / "found.jsonl").is_file() and (tmp_path / "found.jsonl").read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 0 and said.startswith("1 image scored")
    [line] = (tmp_path / "found.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "in/x.png" and json.loads(line)["verdict"]
    both = run_predict(tmp_path, own.run, "in", "--watch", "in")
    neither = run_predict(tmp_path, own.run)
    assert both.status == neither.status == 2 and "either IMAGES or --watch" in both.err and both.err == neither.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "photos", "--output", "a.txt"), "--output a.txt: predictions are written as .csv or .jsonl"),
        (("run", "photos", "--category", "gadget"), "run has no trained gadget; it has: widget"),
        (("run", "photos", "--seed", 3), "run has no seed 3; it has: 0"),
        (("run", "nothing"), "no images in nothing"),
        (("photos", "photos"), "photos is not a run folder of train.py"),
        (("run", "photos", "--far", 0.1, "--threshold", 1), "not allowed with argument"),
        (("run", "photos", "--threshold", "nan"), "nan is not a finite number"),
    ],
)
def test_wrong_calls(own, arguments, message):
    (own.cwd / "nothing").mkdir(exist_ok=True)
    result = run_predict(own.cwd, *arguments)
    assert result.status == 2 and len(result.errors) == 1 and message in result.errors[0]


def test_images_are_found_once_in_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a/c.JPG", "a/.hidden.png", "a/.cache/d.png", "a/notes.txt", "a/e/f.tiff", "odd.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(["a", "b.png", str(tmp_path / "b.png")])
    assert found.paths == [Path("a/c.JPG"), Path("a/e/f.tiff"), Path("b.png")]
    assert find_images(["**/*.png"]).paths == [Path("b.png")]
    assert find_images(["odd.dat", "gone.png"]).paths == [Path("odd.dat"), Path("gone.png")]
    (tmp_path / "[1].png").touch()
    assert find_images(["[1].png"]).paths == [Path("[1].png")]  # a file's name comes before a pattern


def test_reading_ahead_is_in_order_and_bounded():
    begun, taken = [], 0
    for value in read_ahead(lambda item: begun.append(item) or item, range(100), workers=3, most=8):
        assert value == taken
        taken += 1
        assert len(begun) <= taken + 8
    assert taken == 100
