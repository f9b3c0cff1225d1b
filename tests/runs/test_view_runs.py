"""Runs whose models are shown a part of each image: training, results, heat maps, report, and views that do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.base import load_image
from datasets.levels import Levels
from datasets.view import View
from tests.support.commands import TINY, run_report, run_test, run_train
from utils.report.page import build_section
from utils.report.stage1 import picture_stage1
from utils.runs.folder import Run
from utils.runs.settings import read_config

VIEW = View(top=0.25, bottom=0.75, left=0.125, right=1.0, black=20, white=120)
ROBUST = ("--recipe", "robust", "--categories", "bottle", "--aux_path", "builtin")


@pytest.fixture(scope="module")
def robust(trained, tmp_path_factory):
    """Two seeds of a robust run on dark images whose objects fill a quarter of the frame, scored."""
    folder = tmp_path_factory.mktemp("robust")
    for path in (trained.data / "bottle").rglob("*.png"):
        content = np.asarray(Image.open(path).convert("RGB").resize((32, 32)))
        place = folder / "data" / path.relative_to(trained.data)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = np.where(content > 0, 255, 0) if "ground_truth" in path.parts else content // 4
        whole = np.zeros((64, 64, 3), np.uint8)
        whole[8:40, 24:56] = content
        Image.fromarray(whole).save(place)
    for path in (folder / "data").rglob("train/good/*.png"):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:40, 24:56] = 255
        place = folder / "fg/mvtec/bottle/train" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(place)
    options = ("--data_root", folder / "data", *TINY, *ROBUST, "--seeds", 0, 1, "--fg_root", folder / "fg",
               "--eval_every", 1, "--dataset", "mvtec", "--output", folder / "run")
    result = run_train(folder, *options)
    assert result.status == 0, result.err
    return folder


def test_every_seed_is_shown_the_objects_in_full_contrast(robust):
    views = [Run(robust / "run" / seed).category("bottle").view for seed in ("seed0", "seed1")]
    assert views[0] == views[1]
    assert (views[0].top, views[0].bottom, views[0].left, views[0].right) == (3 / 32, 21 / 32, 11 / 32, 29 / 32)
    assert views[0].black == 0 and 30 < views[0].white < 64


def test_results_are_those_of_the_whole_images(robust):
    """What training logged and test.py finds; the maps are lowest where the model is shown nothing."""
    records = [json.loads(line) for line in (robust / "run/seed1/metrics.jsonl").read_text().splitlines()]
    scored = json.loads((robust / "run/seed1/results.json").read_text())["categories"]["bottle"]
    assert scored == pytest.approx({name: records[-1][name] for name in scored}, abs=1e-5)
    options = ("--data_root", robust / "data", "--run", "run", "--save_maps", "--mvtec_maps", "maps")
    result = run_test(robust, *options)
    assert result.status == 0, result.err
    for path in (robust / "maps/seed0/bottle/test").rglob("*.tiff"):
        anomaly_map = np.asarray(Image.open(path))
        assert anomaly_map.shape == (64, 64)
        assert anomaly_map[:4].max() == anomaly_map[-20:].max() == anomaly_map.min()
    heat = np.asarray(Image.open(robust / "run/seed0/maps/bottle/good/000.png"))
    whole = np.asarray(Image.open(robust / "data/bottle/test/good/000.png").resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(heat[:, :32], whole)  # the picture is the photograph


def test_the_report_shows_whole_images_and_amplifies_what_the_model_is_shown(robust, monkeypatch):
    pictures, amplified = [], []

    def keep_pictures(report, **options):
        pictures.append(report.pictures[0])
        return build_section(report, **options)

    def keep_amplified(model, images, *others):
        amplified.append(images[0])
        return picture_stage1(model, images, *others)

    monkeypatch.setattr("utils.report.build.build_section", keep_pictures)
    monkeypatch.setattr("utils.report.build.picture_stage1", keep_amplified)
    assert run_report(robust, "run", "--data_root", robust / "data").status == 0
    assert "Recipe</dt><dd>robust" in (robust / "run/report.html").read_text()
    samples = open_dataset(robust / "data", "mvtec", ["bottle"]).samples("bottle", "test")
    np.testing.assert_array_equal(pictures[0], load_image(samples[0].image_path, 32))
    good = next(sample for sample in samples if not sample.label)
    view = Run(robust / "run/seed0").category("bottle").view
    np.testing.assert_array_equal(amplified[0], view.show(load_image(good.image_path), 32))


def test_seeds_that_are_shown_different_things_are_not_scored_together(robust, tmp_path):
    run = shutil.copytree(robust / "run", tmp_path / "run")
    path = run / "seed1/checkpoints/bottle/view.json"
    path.write_text(json.dumps(asdict(VIEW)))
    result = run_test(tmp_path, "--data_root", robust / "data", "--run", run)
    assert result.status == 2
    assert result.errors[0].startswith(f"error: {path} differs from ")
    assert result.errors[0].endswith(": the seeds were not trained alike")


@pytest.mark.parametrize("content", ["{", "[]", '{"top": 0}', json.dumps({**asdict(VIEW), "bottom": 0.1})])
def test_a_view_that_cannot_be_read_is_an_error_that_names_it(content, robust, tmp_path):
    run = shutil.copytree(robust / "run/seed0", tmp_path / "run")
    path = run / "checkpoints/bottle/view.json"
    path.write_text(content)
    result = run_test(tmp_path, "--data_root", robust / "data", "--run", run)
    assert result.status == 2 and result.errors[0].startswith(f"error: {path} cannot be read (")


def test_a_robust_run_without_its_view_is_an_error(robust, tmp_path):
    run = shutil.copytree(robust / "run/seed0", tmp_path / "run")
    path = run / "checkpoints/bottle/view.json"
    path.unlink()
    result = run_test(tmp_path, "--data_root", robust / "data", "--run", run)
    assert result.status == 2 and result.errors[0].startswith(f"error: {path}")


def test_a_run_does_not_go_on_with_other_training_images(robust, tmp_path):
    run = shutil.copytree(robust / "run/seed0", tmp_path / "run")
    (run / "checkpoints/bottle/stage2.pt").unlink()
    config = read_config(run)
    options = ("--data_root", robust / "data", *TINY, *ROBUST, "--dataset", "mvtec", "--output", run)
    assert config["recipe"] == "robust"
    result = run_train(tmp_path, *options)  # without the stored foregrounds
    assert result.status == 1 and result.errors == [f"error: not trained: bottle; see above, or log.txt in {run}"]
    assert "the training images are not those that the run was started with" in result.out


def test_published_is_shown_the_whole_image(trained):
    assert Run(trained.aand).category("bottle").view == View(levels=Levels())
