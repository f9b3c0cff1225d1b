"""The epoch chosen on synthetic anomalies: what is held out, what is rated, what is kept, and what users see of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.base import DataError, Sample
from datasets.loading import hold_out
from models.aand import build_model
from models.recipes import ROBUST
from models.teacher import build_teacher
from tests.support.commands import TINY, run_report, run_test, run_train, same_weights
from tests.support.trees import good_image, make_mvtec, write_image
from utils.runs.folder import published_protocol, rating, selected_epochs
from utils.selection import BestStudent, rated_epochs, synthetic_test_set

SELECT = ("--select", "synthetic", "--holdout", 0.5, "--aux_path", "builtin")


def samples(count: int) -> list[Sample]:
    return [Sample(Path(f"{number:03d}.png"), 0, "good") for number in range(count)]


def write_log(folder: Path, *records: dict) -> Path:
    lines = [json.dumps({"category": "bottle", "stage": 2, **record}) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


# What is held out


@pytest.mark.parametrize(("count", "share", "held"), [(20, 0.1, 2), (26, 0.1, 3), (3, 0.1, 1), (2, 0.5, 1)])
def test_a_share_is_held_out_and_at_least_one(count, share, held):
    everything = samples(count)
    train, held_out = hold_out(everything, share)
    assert len(held_out) == held
    assert sorted(train + held_out, key=everything.index) == everything
    assert train == sorted(train, key=everything.index) and held_out == sorted(held_out, key=everything.index)


def test_the_choice_is_drawn_and_always_the_same():
    held_out = hold_out(samples(100), 0.1)[1]
    assert held_out == hold_out(samples(100), 0.1)[1]
    assert held_out not in (samples(100)[:10], samples(100)[-10:], samples(100)[::10])


@pytest.mark.parametrize(("count", "share"), [(1, 0.1), (2, 0.9)])
def test_some_must_be_left_to_train_on(count, share):
    with pytest.raises(DataError, match=f"{count} training images are too few"):
        hold_out(samples(count), share)


# What is rated


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, {1}),
        (3, {1, 2, 3}),
        (20, {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}),
        (25, {1, 4, 7, 10, 13, 16, 19, 22, 25}),
        (120, {12, 24, 36, 48, 60, 72, 84, 96, 108, 120}),
    ],
)
def test_ten_epochs_at_most_are_rated_and_the_last_always(epochs, expected):
    assert rated_epochs(epochs) == expected


def test_an_epochs_rating_is_the_mean_of_both_metrics():
    assert rating({"synthetic_image_auroc": 0.75, "synthetic_aupro": 0.25, "image_auroc": 1.0}) == 0.5
    assert rating({"image_auroc": 1.0, "loss": 0.1}) is None


def test_the_epoch_with_the_highest_rating_is_the_result(tmp_path):
    figures = [(0.5, 0.5), (0.9, 0.5), (0.6, 0.8), (1.0, 0.1)]  # means 0.5, 0.7, 0.7, 0.55
    records = [{"epoch": e, "synthetic_image_auroc": a, "synthetic_aupro": p} for e, (a, p) in enumerate(figures, 1)]
    folder = write_log(tmp_path, *records, {"category": "tile", "epoch": 1, "image_auroc": 1.0})
    assert selected_epochs(folder) == {"bottle": 2}  # of equal ones the first; tile was not rated


def test_the_published_protocols_gain_is_above_the_result(tmp_path):
    rated = [{"epoch": e, "image_auroc": a, "synthetic_image_auroc": s} for e, a, s in [(1, 0.9, 0.4), (2, 0.6, 0.8)]]
    folder = write_log(tmp_path, *rated, {"epoch": 3, "image_auroc": 0.7})
    chosen = published_protocol(folder)["bottle"]
    assert chosen["epoch"] == 1
    assert chosen["gain"]["image_auroc"] == pytest.approx(0.3)  # above epoch 2, not above epoch 3


def test_without_test_metrics_of_the_result_there_is_no_gain(tmp_path):
    folder = write_log(tmp_path, {"epoch": 1, "synthetic_image_auroc": 0.4}, {"epoch": 2, "image_auroc": 0.7})
    assert published_protocol(folder) == {}


def test_the_synthetic_test_set_is_of_good_images_and_anomalies():
    rng = np.random.default_rng(0)
    images = np.stack([good_image(rng, 64) for _ in range(3)])
    content = np.concatenate([images, np.ones((3, 64, 64, 1), np.uint8)], axis=-1)
    textures = rng.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    test_set = synthetic_test_set(torch.from_numpy(content), torch.from_numpy(textures))
    anomalies = len(test_set.labels) - 3
    assert 3 * 6 <= anomalies <= 3 * 8
    assert test_set.labels.tolist() == 3 * [0] + anomalies * [1]
    assert test_set.images.shape == (3 + anomalies, 64, 64, 3) and test_set.images.dtype == torch.uint8
    np.testing.assert_array_equal(test_set.images[:3].numpy(), images)
    assert test_set.masks.any(axis=(1, 2)).tolist() == test_set.labels.astype(bool).tolist()
    assert not (test_set.images[3:11].numpy() == images[0]).all(axis=(1, 2, 3)).any()


def test_an_error_where_no_anomaly_can_be_seen(monkeypatch):
    monkeypatch.setattr("datasets.anomalies.unseen.VISIBLE", 255)
    content = torch.full((1, 64, 64, 4), 100, dtype=torch.uint8)
    with pytest.raises(DataError, match="no synthetic anomaly can be seen.*--select last"):
        synthetic_test_set(content, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


# What is kept


def test_the_best_student_comes_back_with_its_levels_scale():
    model = build_model(build_teacher("efficientnet_lite0", "random"), ROBUST)
    parts = {"bottleneck": model.bottleneck, "decoder": model.decoder, "calibration": model.standardisation}
    best, states = BestStudent(model), {}
    for epoch, figure in enumerate([0.4, 0.8, 0.8, 0.6], 1):
        for part in parts.values():
            for tensor in part.state_dict().values():
                tensor.fill_(epoch)  # norms' running statistics and step counts too
        best.offer(epoch, figure)
    best.restore()
    states = [tensor for part in parts.values() for tensor in part.state_dict().values()]
    assert best.epoch == 2
    assert all((tensor == 2).all() for tensor in states)


# What users see


@pytest.fixture(scope="module")
def selected(trained, tmp_path_factory):
    """A run of one category with its epoch chosen on synthetic anomalies, test metrics logged."""
    cwd = tmp_path_factory.mktemp("selected")
    options = ("--categories", "bottle", "--eval_every", 1, "--epochs_stage2", 3, "--output", "run", *SELECT)
    result = run_train(cwd, "--data_root", trained.data, *TINY, *options)
    assert result.status == 0, result.err
    return cwd / "run", result


def test_the_log_has_the_ratings_and_the_choice(selected):
    run, result = selected
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rated = [record for record in records if "synthetic_image_auroc" in record]
    assert [(record["stage"], record["epoch"]) for record in rated] == [(2, 1), (2, 2), (2, 3)]
    assert all(0 <= record["synthetic_aupro"] <= 1 for record in rated)
    epoch = selected_epochs(run)["bottle"]
    line = f"bottle: epoch {epoch} of 3 is the best on synthetic anomalies"
    assert line in (run / "log.txt").read_text()


def test_the_result_is_the_chosen_epochs(selected, trained):
    """Its metrics are those that were logged at that epoch."""
    run, _ = selected
    result = run_test(run.parent, "--data_root", trained.data, "--run", run)
    assert "(epoch chosen on synthetic anomalies)" in result.out
    content = json.loads((run / "results.json").read_text())
    epoch = selected_epochs(run)["bottle"]
    assert content["selected_epochs"] == {"bottle": epoch}
    assert content["protocol"]["epoch"] == "synthetic"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = next(record for record in records if record["stage"] == 2 and record["epoch"] == epoch)
    scored = content["categories"]["bottle"]
    assert scored == pytest.approx({name: logged[name] for name in scored}, abs=1e-5)


def test_the_report_shows_how_the_epoch_was_chosen(selected, trained):
    run, _ = selected
    result = run_report(run.parent, run, "--data_root", trained.data, "--output", "report.html")
    assert result.status == 0, result.err
    page = (run.parent / "report.html").read_text(encoding="utf-8")
    assert "<dt>Result</dt><dd>epoch chosen on synthetic anomalies</dd>" in page
    assert "Stage II: synthetic anomalies on images held out" in page
    assert "last epoch" not in page


def test_held_out_images_are_not_trained_on(tmp_path):
    """With a single epoch there is nothing to choose: other pixels in the held-out images change no weight."""
    data = make_mvtec(tmp_path / "data", train=4)
    train = [Sample(path, 0, "good") for path in sorted((data / "bottle/train/good").iterdir())]
    held_out = hold_out(train, 0.5)[1]
    options = ("--data_root", data, *TINY, *SELECT, "--epochs_stage2", 1, "--output")
    assert run_train(tmp_path, *options, "first").status == 0
    rng = np.random.default_rng(99)
    for sample in held_out:
        write_image(sample.image_path, good_image(rng, 32))
    assert run_train(tmp_path, *options, "second").status == 0
    assert same_weights(tmp_path / "first", tmp_path / "second", "bottle")
    for sample in train:
        write_image(sample.image_path, good_image(rng, 32))
    assert run_train(tmp_path, *options, "third").status == 0
    assert not same_weights(tmp_path / "first", tmp_path / "third", "bottle")


def test_the_baselines_epoch_can_be_chosen_too(trained, tmp_path):
    options = ("--method", "rd4ad", "--categories", "bottle", "--output", "run", *SELECT)
    assert run_train(tmp_path, "--data_root", trained.data, *TINY, *options).status == 0
    assert selected_epochs(tmp_path / "run")["bottle"] in (1, 2)


def test_too_few_images_are_an_error_that_names_the_flag(tmp_path):
    data = make_mvtec(tmp_path / "data", train=1)
    result = run_train(tmp_path, "--data_root", data, *TINY, *SELECT)
    assert result.status == 2
    assert result.errors == [
        "error: --select synthetic --holdout 0.5: bottle: 1 training images are too few to hold 50% of them out"
    ]


@pytest.mark.parametrize("value", ["0", "1", "nan", "half"])
def test_the_share_must_be_between_0_and_1(tmp_path, value):
    result = run_train(tmp_path, "--data_root", tmp_path, "--holdout", value)
    assert result.status == 2 and "--holdout" in result.errors[0]
