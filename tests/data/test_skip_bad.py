"""The check that train.py and test.py start with: all errors in one refusal, warnings in short, and --skip_bad."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from datasets import open_dataset
from tests.support.broken import NOISE, cut
from tests.support.commands import TINY, listing, run_report, run_test, run_train
from tests.support.trees import make_folder, make_mvtec, make_visa, write_image
from utils.detection.test_set import fingerprint

RD4AD = [*TINY, "--method", "rd4ad", "--output", "run"]


def break_tile(data):
    """Break a sound data set in four ways that concern one image each; returns what --skip_bad leaves out."""
    base = data / "tile"
    cut(base / "train/good/004.png")
    shutil.copy(base / "train/good/005.png", base / "test/crack/000.png")
    write_image(base / "ground_truth/crack/001_mask.png", NOISE[:8, :8, 0])
    write_image(base / "ground_truth/crack/777_mask.png", NOISE)
    return {
        "tile/ground_truth/crack/777_mask.png": "mask has no image",
        "tile/test/crack/001.png": "mask and image differ in size",
        "tile/train/good/004.png": "image cannot be read",
        "tile/train/good/005.png": "anomalous test image is a training image too",
    }


@pytest.fixture
def data(tmp_path):
    return make_mvtec(tmp_path / "data", ["bottle", "tile"], train=6)


def lines_of(result) -> list[str]:
    return result.err.replace("\r", "\n").splitlines()


def test_training_refuses_all_errors_at_once_and_early(tmp_path, data, monkeypatch):
    break_tile(data)
    for part in ("test", "ground_truth"):
        shutil.rmtree(data / "bottle" / part)
    monkeypatch.setattr("utils.training.run.build_teacher", lambda *_: pytest.fail("the teacher was built first"))
    result = run_train(tmp_path, "--data_root", "data", *RD4AD)
    assert result.status == 2
    [start] = result.errors
    assert start == "error: 5 errors in data:"
    lines = lines_of(result)
    shown = lines[lines.index(start) + 1 :]
    assert [line.split(" (")[0] for line in shown] == [
        "category cannot be used: data/bottle",
        "mask has no image: data/tile/ground_truth/crack/777_mask.png",
        "image cannot be read: data/tile/train/good/004.png",
        "mask and image differ in size: data/tile/ground_truth/crack/001_mask.png, data/tile/test/crack/001.png",
        "anomalous test image is a training image too: data/tile/test/crack/000.png, data/tile/train/good/005.png",
        "list all with: python scripts/check_data.py --data_root data --dataset mvtec",
    ]
    assert not (tmp_path / "run").exists()


def test_only_the_categories_that_are_trained_are_checked(tmp_path, data):
    break_tile(data)
    result = run_train(tmp_path, "--data_root", data, *RD4AD, "--categories", "bottle")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run/config.json").read_text())["skipped"] == {}
    result = run_test(tmp_path, "--data_root", data, "--run", "run")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run/results.json").read_text())["skipped"] == {}


def test_errors_that_can_be_skipped_say_so_and_many_are_counted(tmp_path):
    data = make_mvtec(tmp_path / "data", defects={"crack": 23}, size=8)
    shutil.rmtree(data / "bottle/ground_truth")
    result = run_train(tmp_path, "--data_root", data, "--dataset", "mvtec", *RD4AD, "--eval_every", 1)
    assert result.status == 2
    lines = lines_of(result)
    assert lines[-23] == f"error: 23 errors in {data}:"
    assert lines[-2] == "... and 3 more"
    assert lines[-1].endswith(f"--data_root {data} --dataset mvtec; --skip_bad goes on without such files")


def test_warnings_are_counted_with_an_example(tmp_path):
    data = make_folder(tmp_path / "my data", train=4)
    for number in ("000", "001"):
        write_image(data / f"widget/ground_truth/crack/{number}_mask.png", np.zeros((32, 32), np.uint8))
    shutil.rmtree(data / "widget/ground_truth/hole")
    expected = [
        f"warning, 1 time: defect without a folder of masks: its category gets an image AUROC only: "
        f"{data / 'widget/test/hole'} (1 image; if they are good, call it good)",
        f"warning, 2 times: mask without a single anomalous pixel: {data / 'widget/ground_truth/crack/000_mask.png'}",
        f"list all with: python scripts/check_data.py --data_root '{data}' --dataset folder",
    ]
    for run, options in ((run_train, RD4AD), (run_test, ["--run", "run"])):
        result = run(tmp_path, "--data_root", data, *options)
        assert result.status == 0, result.err
        assert [line for line in lines_of(result) if line.startswith(("warning", "list all"))] == expected


def test_skip_bad_leaves_out_and_records(tmp_path, data):
    skipped = break_tile(data)
    result = run_train(tmp_path, "--data_root", data, *RD4AD, "--skip_bad")
    assert result.status == 0, result.err
    assert "--skip_bad: going on without 4 files; why: python scripts/check_data.py --data_root " in result.err
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["skipped"] == skipped
    assert "skip_bad" not in config

    result = run_test(tmp_path, "--data_root", data, "--run", "run")
    assert result.status == 2
    assert f"error: 2 errors in {data}:" in result.errors
    result = run_test(tmp_path, "--data_root", data, "--run", "run", "--skip_bad")
    assert result.status == 0, result.err
    assert "--skip_bad: going on without 2 files" in result.err
    results = json.loads((tmp_path / "run/results.json").read_text())
    of_test = ("tile/ground_truth/crack/777_mask.png", "tile/test/crack/001.png")
    assert results["skipped"] == {path: skipped[path] for path in of_test}
    assert results["settings"]["skipped"] == skipped
    (data / "tile/test/crack/001.png").unlink()
    for number in ("001", "777"):
        (data / f"tile/ground_truth/crack/{number}_mask.png").unlink()
    samples = open_dataset(data).samples("tile", "test")
    assert len(samples) == 4
    assert results["test_files"]["tile"] == fingerprint(samples, data)


def test_skipping_is_training_on_the_rest(tmp_path, data):
    """The same losses as on a data set that never had the bad images."""
    break_tile(data)
    result = run_train(tmp_path, "--data_root", data, *RD4AD, "--skip_bad", "--categories", "tile")
    assert result.status == 0, result.err
    for name in ("train/good/004", "train/good/005", "test/crack/001"):
        (data / f"tile/{name}.png").unlink()
    for number in ("001", "777"):
        (data / f"tile/ground_truth/crack/{number}_mask.png").unlink()
    options = (*RD4AD, "--output", "other", "--categories", "tile")
    assert run_train(tmp_path, "--data_root", data, *options).status == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "other")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_run_goes_on_without_the_same_files_only(tmp_path, data):
    break_tile(data)
    options = ("--data_root", data, *RD4AD, "--skip_bad", "--categories", "tile")
    assert run_train(tmp_path, *options).status == 0
    before = listing(tmp_path / "run/checkpoints")
    result = run_train(tmp_path, *options)
    assert result.status == 0, result.err
    assert "tile: already trained, skipped" in result.out
    (data / "tile/ground_truth/crack/777_mask.png").unlink()
    result = run_train(tmp_path, *options)
    assert result.status == 2
    assert "run holds a run with other settings (skipped: " in result.errors[0]
    assert listing(tmp_path / "run/checkpoints") == before


def test_a_run_from_before_the_check_goes_on(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    assert config.pop("skipped") == {}
    (run / "config.json").write_text(json.dumps(config))
    options = (*TINY, "--method", "rd4ad", "--output", run, "--aux_path", "builtin")
    result = run_train(tmp_path, "--data_root", trained.data, *options)
    assert result.status == 0, result.err
    assert "tile: already trained, skipped" in result.out


def test_skip_bad_does_not_help_a_category_without_training_images(tmp_path, data):
    for path in (data / "tile/train/good").iterdir():
        cut(path)
    shutil.rmtree(data / "bottle/train")
    result = run_train(tmp_path, "--data_root", data, *RD4AD, "--skip_bad")
    assert result.status == 2
    assert result.errors == [f"error: 2 errors in {data}:"]
    assert [line.split(" (")[0] for line in lines_of(result)[-2:]] == [
        f"category cannot be used: {data / 'bottle'}",
        f"category has no training image without errors: {data / 'tile'}",
    ]
    assert not (tmp_path / "run").exists()


def test_skip_bad_does_not_help_where_no_test_image_is_left(tmp_path):
    data = make_mvtec(tmp_path / "data", train=4, good=1, defects={})
    assert run_train(tmp_path, "--data_root", data, *RD4AD).status == 0
    cut(data / "bottle/test/good/000.png")
    result = run_test(tmp_path, "--data_root", data, "--run", "run", "--skip_bad")
    assert result.status == 2
    assert "no test images of bottle" in result.errors[0]


def test_skip_bad_with_listed_files_that_are_not_there(tmp_path):
    data = make_visa(tmp_path / "data", train=5)
    for name in ("Images/Normal/0003.JPG", "Masks/Anomaly/001.png", "Images/Anomaly/002.JPG", "Masks/Anomaly/002.png"):
        (data / "candle/Data" / name).unlink()
    result = run_train(tmp_path, "--data_root", data, *RD4AD, "--skip_bad")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run/config.json").read_text())["skipped"] == {
        "candle/Data/Images/Anomaly/001.JPG": "listed mask is not on disk",
        "candle/Data/Images/Anomaly/002.JPG": "listed image is not on disk",  # the first of two reasons
        "candle/Data/Images/Normal/0003.JPG": "listed image is not on disk",
    }


def test_several_seeds_record_what_was_skipped(tmp_path, data):
    skipped = break_tile(data)
    options = (*RD4AD, "--skip_bad", "--categories", "tile", "--seeds", 0, 1)
    result = run_train(tmp_path, "--data_root", data, *options)
    assert result.status == 0, result.err
    for folder in ("run", "run/seed0", "run/seed1"):
        assert json.loads((tmp_path / folder / "results.json").read_text())["skipped"] == skipped


def test_report_of_a_run_with_skipped_images(tmp_path, data):
    break_tile(data)
    assert run_train(tmp_path, "--data_root", data, *RD4AD, "--skip_bad", "--categories", "tile").status == 0
    assert run_report(tmp_path, "run").status == 2
    result = run_report(tmp_path, "run", "--skip_bad")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run/results.json").read_text())["skipped"].keys() == {
        "tile/ground_truth/crack/777_mask.png", "tile/test/crack/001.png"
    }
