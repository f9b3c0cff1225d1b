"""What the model is shown of an image: box and grey levels of a category, and the way back to the whole image."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import open_dataset
from datasets.base import load_image
from datasets.foreground import foreground_mask, rule_for
from datasets.loading import evaluation_files, hold_out, image_files, training_files
from datasets.view import WHOLE, View
from models.aand import AAND
from tests.commands import TINY, run_report, run_test, run_train
from utils import evaluation
from utils.html_report.page import build_section
from utils.html_report.pictures import picture_stage1
from utils.runs import read_config, read_view
from utils.selection import synthetic_test_set

SIZE = 64
VIEW = View(top=0.25, bottom=0.75, left=0.125, right=1.0, black=20, white=120)
ROBUST = ("--recipe", "robust", "--categories", "bottle", "--aux_path", "builtin")


def stack(foregrounds: list[tuple[int, int, int, int]], values: tuple[int, ...] = (10, 200)) -> torch.Tensor:
    """Images (N, S, S, 4) whose values run through `values`, each with a foreground of top, bottom, left, right."""
    images = torch.zeros(len(foregrounds), SIZE, SIZE, 4, dtype=torch.uint8)
    images[..., :3] = torch.tensor(values)[torch.arange(SIZE * SIZE) % len(values)].view(SIZE, SIZE, 1)
    for image, (top, bottom, left, right) in zip(images, foregrounds, strict=True):
        image[top:bottom, left:right, 3] = 1
    return images


# Where the objects are


def test_the_box_holds_every_foreground_and_a_margin():
    view = View.of(stack([(20, 30, 40, 50), (10, 22, 44, 52)]), stretch=False)
    assert view == View(top=8 / 64, bottom=32 / 64, left=38 / 64, right=54 / 64)  # two pixels around


def test_the_box_ends_at_the_frame():
    assert View.of(stack([(1, 64, 0, 30)]), stretch=False) == View(top=0, bottom=1, left=0, right=0.5)


def test_without_any_foreground_all_is_shown():
    assert View.of(stack([(0, 0, 0, 0)] * 2), stretch=False) == WHOLE


def test_the_box_is_over_all_images_of_a_large_set():
    foregrounds = [(30, 34, 30, 34)] * 150
    foregrounds[149] = (2, 4, 30, 34)
    assert View.of(stack(foregrounds), stretch=False).top == 0


def test_what_is_not_asked_for_stays():
    images = stack([(20, 30, 40, 50)])
    assert View.of(images, crop=False, stretch=False) == WHOLE
    assert View.of(images, crop=False) == View(black=10, white=200)


# Grey levels


def test_one_value_in_two_hundred_may_be_black_and_white():
    def levels(values: list[int]) -> View:
        """Of an image that has each of them equally often."""
        size = len(values)
        image = torch.tensor(values, dtype=torch.uint8).repeat(size).view(1, size, size, 1)
        return View.of(image.repeat(1, 1, 1, 4), crop=False)

    assert levels([0, *[50] * 99, *[60] * 98, 90, 90]) == View(black=0, white=90)
    assert levels([0, *[50] * 250, *[60] * 248, 90]) == View(black=50, white=60)
    assert levels([0, *[50] * 498, 90]) == WHOLE  # a single value is left


def test_grey_levels_are_those_within_the_box():
    images = stack([(20, 40, 20, 40)], values=(30, 90))
    images[:, :10, :, :3] = 255  # a bright strip beside the object
    view = View.of(images)
    assert (view.black, view.white) == (30, 90)


def test_stretched_levels_are_linear_and_end_at_black_and_white():
    image = np.array([[[20, 70, 120]], [[0, 45, 255]]], np.uint8)
    shown = replace(VIEW, top=0.0, bottom=1.0, left=0.0).show(np.repeat(image, 2, axis=1), 2)
    assert shown[0, 0].tolist() == [0, 128, 255]  # (70 - 20) / 100 * 255 = 127.5, to even
    assert shown[1, 0].tolist() == [0, 64, 255]  # 63.75


# Showing and placing


def test_the_whole_view_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(WHOLE.show(image, SIZE), np.asarray(expected))
    maps = np.zeros((2, 4, 4), np.float32)
    assert WHOLE.place(maps) is maps


def test_the_box_is_cut_from_the_full_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    view = replace(VIEW, black=0.0, white=255.0)
    expected = Image.fromarray(image[10:30, 10:80]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    inner = slice(8, -8)  # at its edges what lies beside it counts
    np.testing.assert_array_equal(view.show(image, SIZE)[inner, inner], np.asarray(expected)[inner, inner])
    mask = (image[..., 0] > 127).astype(np.uint8)
    expected = Image.fromarray(mask[10:30, 10:80]).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(view.show_mask(mask, SIZE), np.asarray(expected))


def test_a_placed_map_lies_in_its_box_and_is_lowest_beside_it():
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, :, 32:], maps[0, :, :32], maps[1] = 3.0, -1.0, 5.0
    placed = VIEW.place(maps)
    assert placed.dtype == np.float32 and placed.shape == (2, 64, 64)
    np.testing.assert_array_equal(placed[0, 16:48, 8:36], -1)
    np.testing.assert_array_equal(placed[0, 16:48, 36:], 3)
    outside = np.ones((64, 64), bool)
    outside[16:48, 8:] = False
    assert (placed[0][outside] == -1).all() and (placed[1] == 5).all()


def test_a_defect_comes_back_to_where_it_was():
    image = np.zeros((96, 160, 3), np.uint8)
    image[40:52, 90:110] = 255
    shown = View(0.25, 0.75, 0.125, 1.0).show(image, SIZE)[..., 0].astype(np.float32)
    placed = View(0.25, 0.75, 0.125, 1.0).place(shown[None])[0] > 127
    expected = np.asarray(Image.fromarray(image[..., 0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) > 127
    assert (placed & expected).sum() / (placed | expected).sum() > 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        dict(top=0.5, bottom=0.5), dict(left=-0.1), dict(right=1.1), dict(black=200, white=100), dict(white=256),
        dict(top="0"), dict(black=True), dict(top=float("nan")),
    ],
)  # fmt: skip
def test_a_view_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="of a view"):
        View(**wrong)


def test_a_view_is_read_back_and_anything_else_is_refused():
    assert View.from_dict(json.loads(json.dumps(asdict(VIEW)))) == VIEW
    for wrong in ([], {"top": 0}, {**asdict(VIEW), "more": 1}):
        with pytest.raises(ValueError, match="a view has top, bottom"):
            View.from_dict(wrong)


# In the data and the results


def test_files_are_decoded_as_the_view_shows_them(trained, tmp_path):
    path = sorted((trained.data / "bottle/train/good").iterdir())[0]
    image = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(image_files([path], VIEW).load(path, 32), VIEW.show(image, 32))
    content = training_files([path], "mvtec", "carpet", None, VIEW).load(path, 32)
    np.testing.assert_array_equal(content[..., :3], VIEW.show(image, 32))
    part = np.zeros((64, 64, 3), np.uint8)
    part[10:50, 20:44] = 200
    Image.fromarray(part).save(tmp_path / "part.png")
    foreground = training_files([tmp_path / "part.png"], "mvtec", "pill", None, VIEW).load(tmp_path / "part.png", 32)
    found = foreground_mask(part, rule_for("mvtec", "pill"))
    assert found.any() and not found.all()
    np.testing.assert_array_equal(foreground[..., 3], VIEW.show_mask(found, 32))
    keys = {image_files([path], view).depends_on for view in (WHOLE, VIEW, replace(VIEW, black=21))}
    assert len(keys) == 3  # in a disk cache each has its own file
    images, masks = evaluation_files([], VIEW)
    assert images.depends_on == image_files([], VIEW).depends_on and masks.kind == "masks"


class Bright(AAND):
    """Its anomaly map is the image itself."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def normalise(self, images):
        return images.float()

    def forward(self, images):
        maps = images[:, :1]
        return maps, maps.amax(dim=(1, 2, 3))


def test_predictions_are_of_the_whole_image():
    images = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    images[:, 32:] = 100
    test_set = evaluation.TestSet(images, np.array([1]), np.zeros((1, SIZE, SIZE), np.uint8), VIEW)
    prediction = evaluation.Prediction.of(Bright(), test_set, batch_size=1)
    np.testing.assert_array_equal(prediction.maps[0, 32:48, 8:], 100)
    assert prediction.maps[0, 48:].max() == prediction.maps[0, :, :8].max() == 0
    assert prediction.scores.tolist() == [100]


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
               "--eval_every", 1, "--dataset", "mvtec", "--output", folder / "run")  # fmt: skip
    result = run_train(folder, *options)
    assert result.status == 0, result.err
    return folder


def test_every_seed_is_shown_the_objects_in_full_contrast(robust):
    views = [read_view(robust / "run" / seed, "bottle") for seed in ("seed0", "seed1")]
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


def test_epochs_are_rated_on_what_the_model_is_shown(robust, tmp_path, monkeypatch):
    """The held-out images are decoded as the training images are, and their maps stay as they are."""
    made = []

    def keep(held_out, textures):
        made.append((held_out[:], synthetic_test_set(held_out, textures)))
        return made[-1][1]

    monkeypatch.setattr("utils.launch.synthetic_test_set", keep)
    options = ("--data_root", robust / "data", *TINY, *ROBUST, "--fg_root", robust / "fg", "--dataset", "mvtec",
               "--select", "synthetic", "--holdout", 0.5, "--output", tmp_path / "run")  # fmt: skip
    assert run_train(tmp_path, *options).status == 0
    [(held_out_images, validation)] = made
    view = read_view(tmp_path / "run", "bottle")
    _, held_out = hold_out(open_dataset(robust / "data", "mvtec", ["bottle"]).samples("bottle", "train"), 0.5)
    for content, sample in zip(held_out_images, held_out, strict=True):
        np.testing.assert_array_equal(content[..., :3], view.show(load_image(sample.image_path), 32))
    assert view != WHOLE and validation.view == WHOLE


def test_the_report_shows_whole_images_and_amplifies_what_the_model_is_shown(robust, monkeypatch):
    pictures, amplified = [], []

    def keep_pictures(report):
        pictures.append(report.pictures[0])
        return build_section(report)

    def keep_amplified(model, images, *others):
        amplified.append(images[0])
        return picture_stage1(model, images, *others)

    monkeypatch.setattr("utils.html_report.build.build_section", keep_pictures)
    monkeypatch.setattr("utils.html_report.build.picture_stage1", keep_amplified)
    assert run_report(robust, "run", "--data_root", robust / "data").status == 0
    assert "Recipe</dt><dd>robust" in (robust / "run/report.html").read_text()
    samples = open_dataset(robust / "data", "mvtec", ["bottle"]).samples("bottle", "test")
    np.testing.assert_array_equal(pictures[0], load_image(samples[0].image_path, 32))
    good = next(sample for sample in samples if not sample.label)
    view = read_view(robust / "run/seed0", "bottle")
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
    assert result.status == 2
    assert "the training images are not those that the run was started with" in result.errors[0]


def test_published_is_shown_the_whole_image(trained):
    assert read_view(trained.aand, "bottle") == WHOLE
    assert not (trained.aand / "checkpoints/bottle/view.json").exists()
