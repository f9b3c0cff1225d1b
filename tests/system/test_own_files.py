"""Predictions and heat maps go over no file of others, and no program takes its own pictures for photographs."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError, load_image
from datasets.marks import ANOMALY_MAP, FOREGROUND, HEAT_MAP, mark_of, png_bytes, tiff_bytes
from tests.support.commands import run_check, run_predict, run_test
from tests.support.foreign import refused
from tests.support.trees import good_image, write_image
from utils.detection.output import map_paths

pytestmark = pytest.mark.usefixtures("one_thread")
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


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
    assert "cannot write maps/b/x.png.png" in result.errors[0]
    assert "pictures of 1 image could not be written" in result.err
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
