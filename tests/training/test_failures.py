"""What goes wrong in the middle of a run: each case has one outcome, and nothing that was computed is lost."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.support.commands import TINY, run_test, run_train, same_weights
from tests.support.trees import make_folder, write_image
from utils.metrics import METRICS
from utils.system import files as misc
from utils.system.errors import TrainingError, WriteError
from utils.system.files import atomic_write, write_text
from utils.training import stages
from utils.training.steps import Average, NonFiniteLoss

pytestmark = pytest.mark.usefixtures("one_thread")
FLAGS = [*TINY, "--aux_path", "builtin"]


@contextmanager
def full_disk(free: int = 0):
    """No file may grow beyond `free` bytes: as on a full disk, writing fails with an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Files


@pytest.mark.parametrize("size", [10, 10**6])
def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path, size):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with full_disk(), pytest.raises(WriteError, match=f"cannot write {path}: File too large; what was there before"):
        write_text(path, "x" * size)
    assert path.read_text() == "before" and files(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, number):
    """Wherever it is found out: here by the last call, and by the first."""

    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(misc.os, "fsync", refuse)
    with pytest.raises(WriteError, match=os.strerror(number)):
        write_text(tmp_path / "a.txt", "after")
    monkeypatch.setattr(misc.Path, "mkdir", refuse)
    with pytest.raises(WriteError, match=os.strerror(number)), atomic_write(tmp_path / "b.txt"):
        pytest.fail("the block was entered")
    assert files(tmp_path) == []


def test_room_for_a_mapped_file_is_taken_at_once(tmp_path):
    """Without it a full disk would end the process with a bus error when the mapping is written to."""
    with (tmp_path / "map").open("wb+") as file:
        file.truncate(8 * 2**20)
        assert os.fstat(file.fileno()).st_blocks * 512 < 2**20
        misc.reserve(file)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 8 * 2**20


def test_a_full_disk_under_the_cache_is_an_error(trained, tmp_path, monkeypatch):
    def refuse(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(misc.os, "posix_fallocate", refuse)
    result = run_train(tmp_path, "--data_root", trained.data, *FLAGS, "--cache", "disk", "--output", "run")
    assert result.status == 2 and "No space left on device" in result.errors[0]
    assert files(tmp_path) == ["cache/checks.json"]


def test_a_run_goes_on_after_the_disk_was_full(trained, tmp_path, monkeypatch):
    command = ("--data_root", trained.data, *FLAGS, "--output", "run")
    with monkeypatch.context() as patch, full_disk(-1):

        def fill(*arguments, **options):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return train_stage2(*arguments, **options)

        train_stage2 = stages.train_stage2
        patch.setattr(stages, "train_stage2", fill)
        result = run_train(tmp_path, *command)
    assert result.status == 2
    [error] = result.errors
    assert "cannot write run/checkpoints/bottle/stage2.progress.pt: File too large" in error
    kept = [f"bottle/{name}" for name in ("stage1.pt", "training_images.json", "view.json")]
    assert files(tmp_path / "run/checkpoints") == [*kept, "teacher.pt"]
    assert run_train(tmp_path, *command).status == 0
    assert all(same_weights(tmp_path / "run", trained.aand, category) for category in ("bottle", "tile"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (trained.aand / "metrics.jsonl").read_bytes()


def test_a_log_that_cannot_be_written_stops_the_run_and_not_only_the_category(trained, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/metrics.jsonl")

    monkeypatch.setattr(stages, "train_stage2", fail)
    result = run_train(tmp_path, "--data_root", trained.data, *FLAGS, "--output", "run")
    assert result.status == 2 and result.errors == ["error: [Errno 28] No space left on device: 'run/metrics.jsonl'"]
    assert not (tmp_path / "run/checkpoints/tile").exists()


def test_the_cache_may_be_deleted_between_two_starts(trained, tmp_path, monkeypatch):
    command = ("--data_root", trained.data, *FLAGS, "--cache", "disk", "--output", "run")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_stage2", lambda *arguments: 1 / 0)
        assert run_train(tmp_path, *command).status == 1
    shutil.rmtree(tmp_path / "cache")
    assert run_train(tmp_path, *command).status == 0
    assert same_weights(tmp_path / "run", trained.aand, "tile")


# Categories


def test_a_category_that_fails_does_not_stop_the_others(trained, tmp_path, monkeypatch):
    command = ("--data_root", trained.data, *FLAGS, "--output", "run")
    train_stage2 = stages.train_stage2

    def fail_once(model, data, *arguments):
        if "bottle" in data.paths[0].parts:
            raise ZeroDivisionError("an unforeseen defect")
        train_stage2(model, data, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_stage2", fail_once)
        result = run_train(tmp_path, *command)
    assert result.status == 1
    assert result.errors == ["error: not trained: bottle; see above, or log.txt in run"]
    assert "bottle failed: ZeroDivisionError: an unforeseen defect (traceback in log.txt)" in result.out
    assert 'raise ZeroDivisionError("an unforeseen defect")' in (tmp_path / "run/log.txt").read_text()
    assert same_weights(tmp_path / "run", trained.aand, "tile")
    assert run_train(tmp_path, *command).status == 0
    assert same_weights(tmp_path / "run", trained.aand, "bottle")


def test_the_seeds_that_remain_are_trained_and_scored(trained, tmp_path, monkeypatch):
    train_stage2 = stages.train_stage2

    def fail_once(model, data, config, stage):
        if "tile" in data.paths[0].parts and config.seed == 0:
            raise TrainingError("tile: no luck")
        train_stage2(model, data, config, stage)

    monkeypatch.setattr(stages, "train_stage2", fail_once)
    result = run_train(tmp_path, "--data_root", trained.data, *FLAGS, "--seeds", 0, 1, "--output", "run")
    assert result.status == 1 and "not scored: tile" in result.out
    assert json.loads((tmp_path / "run/results.json").read_text())["categories"].keys() == {"bottle"}
    assert (tmp_path / "run/seed1/checkpoints/tile/stage2.pt").is_file()


def test_an_image_that_is_deleted_in_mid_run_costs_its_category_alone(trained, tmp_path, monkeypatch):
    data = shutil.copytree(trained.data, tmp_path / "data")
    image = data / "bottle/train/good/002.png"

    def delete(*arguments, **options):
        image.unlink(missing_ok=True)
        return train_stage2(*arguments, **options)

    train_stage2 = stages.train_stage2
    monkeypatch.setattr(stages, "train_stage2", delete)
    nothing_kept = ("--cache", "none", "--cache_features", "off")
    result = run_train(tmp_path, "--data_root", data, *FLAGS, *nothing_kept, "--output", "run")
    assert result.status == 1
    assert f"bottle failed: cannot read image {image}" in result.out
    assert (tmp_path / "run/checkpoints/tile/stage2.pt").is_file()
    kept = run_train(tmp_path, "--data_root", trained.data, *FLAGS, "--output", "kept")  # in memory it is not missed
    assert kept.status == 0


# Numbers


def test_the_first_loss_that_is_no_number_is_found():
    average = Average()
    average.add(2, loss=torch.tensor(1.0))
    average.add(2, loss=torch.tensor(math.inf))
    average.add(2, loss=torch.tensor(math.nan))
    for find in (average.finish, average.state_dict):
        with pytest.raises(NonFiniteLoss, match="the loss is inf in step 2") as caught:
            find()
        assert caught.value.step == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_stage_and_names_the_images(trained, tmp_path, monkeypatch, value):
    command = ("--data_root", trained.data, *FLAGS, "--output", "run")
    steps = iter(range(100))

    def spoil(*arguments):
        loss = stage2_loss(*arguments)
        return loss * value if next(steps) == 3 else loss  # the last step of the second epoch

    stage2_loss = stages.stage2_loss
    with monkeypatch.context() as patch:
        patch.setattr(stages, "stage2_loss", spoil)
        result = run_train(tmp_path, *command)
    assert result.status == 1
    order = np.random.default_rng([0, 2]).permutation(4)[2:]  # of seed 0 and epoch 2, as datasets.batches shuffles
    images = "\n".join(str(trained.data / f"bottle/train/good/{place:03d}.png") for place in order)
    assert f"bottle: the loss of stage 2 became {value} in epoch 2, step 2" in result.out
    assert f"The images of this step:\n{images}\n" in result.out
    epochs = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["epoch"]) for e in epochs if e["category"] == "bottle"] == [(1, 1), (1, 2), (2, 1)]
    assert (tmp_path / "run/checkpoints/bottle/stage2.progress.pt").is_file()
    assert run_train(tmp_path, *command).status == 0  # goes on from the epoch before
    assert same_weights(tmp_path / "run", trained.aand, "bottle")


@pytest.mark.parametrize("recipe", ["published", "robust"])
@pytest.mark.parametrize("kind", ["constant", "black", "one image", "no foreground"])
def test_poor_data_are_trained_and_scored(tmp_path, kind, recipe):
    """Constant images, a batch of one, foregrounds of nothing: losses, scores and metrics are numbers."""
    data = make_folder(tmp_path / "data", ["part"], train=1 if kind == "one image" else 3)
    if kind in ("constant", "black"):
        for path in (data / "part/train/good").iterdir():
            write_image(path, np.full((64, 64, 3), 120 if kind == "constant" else 0, np.uint8))
    if kind == "no foreground":
        for path in (data / "part/train/good").iterdir():
            write_image(tmp_path / f"fg_mask/folder/part/train/{path.stem}.png", np.zeros((32, 32), np.uint8))
    command = ("--data_root", data, *FLAGS, "--image_size", 64, "--recipe", recipe, "--eval_every", 1)
    result = run_train(tmp_path, *command, "--output", "run")
    assert result.status == 0, result.out + result.err
    told = result.out.count("3 of 3 images have no foreground: no anomaly is painted on them (masks in fg_mask)\n")
    assert told == (kind == "no foreground"), result.out
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    numbers = [value for record in records for value in record.values() if isinstance(value, float)]
    assert len(numbers) > 10 and all(math.isfinite(number) for number in numbers)
    assert run_test(tmp_path, "--data_root", data, "--run", "run").status == 0
    results = json.loads((tmp_path / "run/results.json").read_text())["categories"]["part"]
    assert results.keys() == set(METRICS) and all(0 <= value <= 1 for value in results.values())


