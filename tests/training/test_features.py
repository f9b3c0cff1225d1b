"""The teacher's features, kept or computed anew: the same values, and kept only where there is room."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.aand import build_model
from models.teacher import build_teacher
from utils.training import features as features_module
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.resumable import ResumableStage
from utils.training.stages import train_stage2

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
LEVELS = [(24, 16, 16), (40, 8, 8), (112, 4, 4)]  # channels, height, width of efficientnet_lite0 at 64 px
PIXELS = sum(channels * height * width for channels, height, width in LEVELS)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(build_teacher("efficientnet_lite0", "random"))


def make_features(model, count=8, batch_size=4, precision="fp32"):
    """Features of noise; the fourth channel is that of training images, and not looked at."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 4), dtype=np.uint8))
    execution = Execution(precision=precision)
    return TeacherFeatures(model, images, batch_size=batch_size, seed=0, execution=execution)


def pairs_of_batches(one, other):
    for epoch in (1, 2):
        for levels, others in zip(one.epoch(epoch), other.epoch(epoch), strict=True):
            yield from zip(levels, others, strict=True)


def test_features_are_the_teachers_of_the_epochs_images(model):
    found = make_features(model, count=5, batch_size=2)
    order = np.random.default_rng([0, 3]).permutation(5)
    batches = list(found.epoch(3))
    assert [len(levels[0]) for levels in batches] == [2, 2, 1]
    with torch.no_grad():
        right = model.teacher(model.normalise(found.images[order][..., :3].permute(0, 3, 1, 2)))
    for index, level in enumerate(right):
        assert level.shape[1:] == LEVELS[index]
        torch.testing.assert_close(torch.cat([levels[index] for levels in batches]), level, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_keeping_full_batches_changes_no_bit(model, tmp_path, precision, cache):
    kept, anew = (make_features(model, precision=precision) for _ in range(2))
    kept.keep("on", cache, tmp_path)
    kept.images = anew.images[:, :0]  # pixels are not looked at again
    for level, other in pairs_of_batches(kept, anew):
        assert level.dtype == other.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        assert torch.equal(level, other)


@pytest.mark.parametrize("count", [7, 9])
def test_keeping_changes_a_batch_of_another_size_by_rounding_alone(model, tmp_path, count):
    kept, anew = (make_features(model, count) for _ in range(2))
    kept.keep("on", "ram", tmp_path)
    for level, other in pairs_of_batches(kept, anew):
        torch.testing.assert_close(level, other, rtol=0, atol=1e-5 * other.abs().max().item())


def losses(count, keep, tmp_path, precision="fp32"):
    torch.manual_seed(0)
    model = build_model(build_teacher("efficientnet_lite0", "random"))
    features = make_features(model, count, precision=precision)
    choice = "on" if keep else "off"
    config = TrainConfig(
        tmp_path, batch_size=features.batch_size, epochs_stage2=2, precision=precision, cache_features=choice
    )
    stage, records = ResumableStage(), []
    stage.log = lambda epoch, figures: records.append(figures["loss"])
    train_stage2(model, TrainingSet(features.images, []), config, stage)
    return records


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stage2_has_the_same_losses_with_kept_features(tmp_path, precision):
    kept = losses(8, True, tmp_path, precision)
    assert kept == losses(8, False, tmp_path, precision)
    assert kept[0] != kept[1]


def test_stage2_has_nearly_the_same_losses_where_the_last_batch_is_smaller(tmp_path):
    assert losses(7, True, tmp_path) == pytest.approx(losses(7, False, tmp_path), rel=1e-3)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_auto_keeps_what_fits_into_half_of_the_room(model, tmp_path, monkeypatch, cache, precision, size):
    needed = 8 * PIXELS * size

    def say_there_are(free):
        elsewhere = 10**12  # the other place is never asked
        monkeypatch.setattr(features_module, "available_memory", lambda *_: free if cache == "ram" else elsewhere)
        usage = SimpleNamespace(free=free if cache == "disk" else elsewhere)
        monkeypatch.setattr(features_module.shutil, "disk_usage", lambda folder: usage)

    place = {"ram": "in memory", "disk": "on disk"}[cache]
    found = make_features(model, precision=precision)
    say_there_are(2 * needed - 1)
    notice = found.keep("auto", cache, tmp_path / "cache")
    assert found.kept is None
    assert f"do not fit into half of the {2 * needed / 1e9:.2f} GB free {place}: computed anew" in notice
    assert len(list(found.epoch(1))) == 2
    assert found.keep("on", cache, tmp_path / "cache") == f"{needed / 1e9:.2f} GB of features are kept {place}"
    assert sum(level.nbytes for level in found.kept) == needed
    found.kept = None
    say_there_are(2 * needed)
    assert found.keep("auto", cache, tmp_path / "cache") == f"{needed / 1e9:.2f} GB of features are kept {place}"
    assert sum(level.nbytes for level in found.kept) == needed


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_off_never_keeps(model, tmp_path, cache):
    found = make_features(model)
    assert found.keep("off", cache, tmp_path / "cache") == "features are computed anew in each epoch"
    assert found.kept is None
    assert not (tmp_path / "cache").exists()


def test_features_on_disk_have_no_name_there(model, tmp_path):
    found = make_features(model)
    found.keep("on", "disk", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    shutil.rmtree(tmp_path / "cache")
    assert len(list(found.epoch(1))) == 2
