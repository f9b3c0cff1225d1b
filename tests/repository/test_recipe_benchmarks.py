"""The benchmarks by which recipes and the memory's constants are chosen, at tiny settings."""

from __future__ import annotations

import re
from argparse import Namespace

import numpy as np
import pytest
import torch

from benchmarks import memory_choices, recipes
from datasets.base import DataError
from datasets.view import WHOLE, View
from tests.repository.test_benchmarks import call, tables
from tests.support.trees import good_image, make_folder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recipes(monkeypatch, capsys, tmp_path):
    amplified = []
    train_stage1 = recipes.train_stage1
    monkeypatch.setattr(recipes, "train_stage1", lambda *a: amplified.append(a[2].seed) or train_stage1(*a))
    rows = ["rd4ad", "patchcore", "published", "published, standardised", "robust"]
    options = ("--category", "bottle", "--aux_path", "builtin", "--weights", "random", "--image_size", 64)
    data = make_folder(tmp_path, ["bottle"], train=6, size=96)
    printed = call(
        recipes, monkeypatch, capsys, "--data_root", data, *options, "--epochs", 2, "--seeds", 0, 1, "--only", *rows
    )
    [[_, *table]] = tables(printed)
    assert [row[0] for row in table] == rows
    assert all(re.fullmatch(r"[\d.]+ ± [\d.]+", cell) for row in table for cell in row[1:4])
    assert "seeds 0 1, 8 validation images" in printed  # one is held out; seven of eight kinds can be seen on it
    assert amplified == [0, 1, 0, 1]  # the standardised row has the Stage I of the one before, robust its own view


def test_recipes_are_validated_on_the_same_anomalies_whatever_they_show(tmp_path):
    data = make_folder(tmp_path, ["bottle"], train=6, size=96)
    options = Namespace(data_root=data, category="bottle", aux_path="builtin", image_size=64)
    category = recipes.Category(options, torch.device("cpu"))
    view = View(top=0.25, bottom=0.75, left=0.25, right=0.75, black=10, white=200)
    whole, cropped = category.validation_of(WHOLE), category.validation_of(view)
    assert category.validation.images.shape == (8, 96, 96, 3)  # finer than what models see
    for shown, of in ((whole, WHOLE), (cropped, view)):
        assert shown.images.shape == (8, 64, 64, 3) and shown.view == of
        np.testing.assert_array_equal(shown.images[3].numpy(), of.show(category.validation.images[3].numpy(), 64))
    np.testing.assert_array_equal(whole.masks, cropped.masks)  # whole in both
    assert whole.masks.shape == (8, 64, 64) and whole.masks[1:].any(axis=(1, 2)).all()


def test_choices_of_the_memory_are_rated_with_one_training(monkeypatch, capsys, tmp_path):
    def said(*choices):
        monkeypatch.setattr(memory_choices, "CHOICES", {name: all_choices[name] for name in choices})
        torch.manual_seed(0)  # of the random teacher
        [[heading, *rows]] = tables(call(memory_choices, monkeypatch, capsys, *places, *options))
        assert heading == ["anomalies", "", "mean", "bottle", "cable"]
        assert [row[:2] for row in rows] == [[sort, name] for sort in ("small", "large", "obvious") for name in choices]
        return [row[2:] for row in rows]

    all_choices, before = memory_choices.CHOICES, {**vars(memory_choices.memory)}
    data = make_folder(tmp_path, ["bottle", "cable"], train=6, size=96)
    places = data / "bottle", data / "cable"
    options = ("--aux_path", "builtin", "--weights", "random", "--image_size", 64, "--epochs", 1, "--device", "cpu")
    small, as_eight, large, large_as_eight, *obvious = said("as it is", "memory as 8 levels")
    assert small != as_eight and small != large
    for row in (small, as_eight, large, large_as_eight, *obvious):
        mean, *own = (np.array([float(figure) for figure in cell.split(" / ")]) for cell in row)
        np.testing.assert_allclose(mean, np.mean(own, axis=0), atol=0.11)
    assert said("memory as 8 levels", "as it is") == [as_eight, small, large_as_eight, large, *obvious[::-1]]
    assert vars(memory_choices.memory) == before


def test_the_synthetic_test_set_is_of_good_images_and_anomalies():
    rng = np.random.default_rng(0)
    images = np.stack([good_image(rng, 64) for _ in range(3)])
    content = np.concatenate([images, np.ones((3, 64, 64, 1), np.uint8)], axis=-1)
    textures = rng.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    test_set = recipes.synthetic_test_set(torch.from_numpy(content), torch.from_numpy(textures))
    anomalies = len(test_set.labels) - 3
    assert 3 * 6 <= anomalies <= 3 * 8
    assert test_set.labels.tolist() == 3 * [0] + anomalies * [1]
    assert test_set.images.shape == (3 + anomalies, 64, 64, 3) and test_set.images.dtype == torch.uint8
    np.testing.assert_array_equal(test_set.images[:3].numpy(), images)
    assert test_set.masks.any(axis=(1, 2)).tolist() == test_set.labels.astype(bool).tolist()
    assert not (test_set.images[3:11].numpy() == images[0]).all(axis=(1, 2, 3)).any()


def test_an_error_where_no_anomaly_can_be_seen(monkeypatch):
    monkeypatch.setattr("benchmarks.unseen_anomalies.VISIBLE", 255)
    content = torch.full((1, 64, 64, 4), 100, dtype=torch.uint8)
    with pytest.raises(DataError, match="no synthetic anomaly can be seen on the images held out"):
        recipes.synthetic_test_set(content, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
