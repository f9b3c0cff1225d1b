"""Both programs on every layout, as a user calls them: what is printed and written, and that nothing else is."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shutil
import sys

import cv2
import numpy as np
import pytest

from datasets import open_dataset
from datasets.foreground import fg_mask_path
from tests.support.commands import ROOT, TINY, listing, run_process, run_test, run_train
from tests.support.trees import make_folder, make_mvtec, make_mvtec3d, make_visa, write_image
from utils.metrics import METRICS

MAKERS = {"mvtec": make_mvtec, "visa": make_visa, "mvtec3d": make_mvtec3d, "folder": make_folder}
CATEGORIES = {"mvtec": ("tile", "bottle"), "visa": ("candle",), "mvtec3d": ("bagel",), "folder": ("gadget", "widget")}
PRINTED = ("image_auroc", "pixel_auroc", "aupro")


def table(out: str) -> dict[str, list[str]]:
    """The rows of the printed table: {category: cells}."""
    lines = out[out.index("\nCategory") :].splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip("-")}


@pytest.mark.parametrize("name", MAKERS)
def test_train_and_test(tmp_path, name):
    data = MAKERS[name](tmp_path / "data" / "set", CATEGORIES[name], train=4)
    textures = tmp_path / "data" / "dtd" / "images" / "dotted"  # found beside the data set
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        write_image(textures / f"{number}.jpg", noise)
    cwd, before = tmp_path / "work", listing(tmp_path / "data")
    cwd.mkdir()
    done = run_process(cwd, "train.py", "--data_root", data, *TINY)
    assert done.status == 0, done.err
    categories = sorted(CATEGORIES[name])
    [run] = (cwd / "runs").iterdir()  # its default name
    assert re.fullmatch(f"{name}-aand-efficientnet_lite0-[0-9]{{8}}-[0-9]{{6}}", run.name)
    check_training(run, data, name, categories)
    files = sorted(path.relative_to(cwd).as_posix() for path in cwd.glob("*/*"))
    assert files == ["cache/checks.json", f"runs/{run.name}"]

    done = run_process(cwd, "test.py", "--data_root", data, "--device", "cpu", "--save_maps")
    assert done.status == 0, done.err
    check_results(run, done.out, categories)
    for category in categories:
        samples = open_dataset(data).samples(category, "test")
        pictures = {path.relative_to(run / "maps" / category) for path in (run / "maps" / category).rglob("*.*")}
        assert {path.as_posix() for path in pictures} == {f"{sample.name}.png" for sample in samples}
        assert {cv2.imread(str(run / "maps" / category / path)).shape for path in pictures} == {(32, 64, 3)}
    assert {path.name for path in run.iterdir()} == {
        ".lock", "checkpoints", "config.json", "log.txt", "maps", "metrics.jsonl", "results.csv", "results.json",
        "scores.csv",
    }
    assert listing(tmp_path / "data") == before
    assert sorted(path.relative_to(cwd).as_posix() for path in cwd.glob("*/*")) == files


def check_training(run, data, name, categories):
    config = json.loads((run / "config.json").read_text())
    expected = {
        "data_root": str(data), "dataset": name, "method": "aand", "backbone": "efficientnet_lite0", "image_size": 32,
        "batch_size": 2, "epochs_stage1": 2, "epochs_stage2": 2, "lr": 0.005, "seed": 0,
    }
    assert {key: config[key] for key in expected} == expected
    assert sorted(config["categories"]) == categories
    files = {path.relative_to(run / "checkpoints").as_posix() for path in (run / "checkpoints").rglob("*.*")}
    names = ("stage1.pt", "stage2.pt", "view.json", "training_images.json")
    assert files == {"teacher.pt", *(f"{category}/{name}" for category in categories for name in names)}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [(r["category"], r["stage"], r["epoch"]) for r in records]
    assert sorted(epochs) == [(c, stage, epoch) for c in categories for stage in (1, 2) for epoch in (1, 2)]
    assert all(np.isfinite(r["loss"]) for r in records)
    assert all(("gate_recall" in r or "focal" in r) == (r["stage"] == 1) for r in records)
    assert not any(metric in r for r in records for metric in METRICS)  # test images were not scored
    log = (run / "log.txt").read_text()
    for category, stage, epoch in epochs:
        assert len(re.findall(f"{category} stage {stage} epoch {epoch}/2 .*loss [0-9.]+", log)) == 1
    assert "foreground masks made on the fly" in log


def check_results(run, out, categories):
    rows = table(out)
    assert rows.pop("Category") == ["I-AUROC", "P-AUROC", "PRO"]
    assert sorted(rows) == ["Mean", *categories]
    results = json.loads((run / "results.json").read_text())
    assert sorted(results["categories"]) == categories
    for category in categories:
        values = results["categories"][category]
        assert list(values) == list(METRICS)
        assert all(0 <= value <= 1 for value in values.values())
        assert rows[category] == [f"{100 * values[metric]:.2f}" for metric in PRINTED]
        assert set(results["seconds"][category]) == {"training", "testing"}
    means = {metric: np.mean([results["categories"][c][metric] for c in categories]) for metric in METRICS}
    assert results["mean"] == pytest.approx(means)
    assert rows["Mean"] == [f"{100 * means[metric]:.2f}" for metric in PRINTED]
    with (run / "results.csv").open(newline="") as file:
        lines = {line.pop("category"): line for line in csv.DictReader(file)}
    expected = results["categories"] | {"Mean": means}
    assert {name: {heading: float(value) for heading, value in line.items()} for name, line in lines.items()} == {
        name: pytest.approx({f"{metric} [0..1]": value for metric, value in row.items()})
        for name, row in expected.items()
    }


def test_published_defaults(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data_root", "data/mvtec"])
    args = vars(runpy.run_path(str(ROOT / "train.py"))["parse_args"]())
    published = {
        "dataset": "auto", "method": "aand", "backbone": "wide_resnet50_2", "weights": "default", "image_size": 256,
        "batch_size": 16, "epochs_stage1": 100, "epochs_stage2": 120, "lr": 0.005, "seed": 0, "eval_every": 0,
        "precision": "auto", "device": "auto", "categories": None, "aux_path": None, "output": None, "seeds": None,
        "cache": "ram", "cache_features": "auto", "compile": False, "plain": False,
    }
    assert {name: args[name] for name in published} == published


@pytest.mark.parametrize("program", ["train.py", "test.py"])
def test_every_flag_has_help(tmp_path, program):
    result = (run_train if program == "train.py" else run_test)(tmp_path, "--help")
    assert result.status == 0
    usage, _, options = result.out.partition("options:")
    for flag in re.findall(r"\[?(--[a-z_0-9]+)", usage.split("\n\n")[0]):
        assert re.search(rf"{flag}\b[^\n]*?(\n\s+| {{2,}})[A-Za-z]", options), f"{flag} is not explained"


def test_default_run_is_the_newest_of_the_data_set(trained, tmp_path):
    not_scored = shutil.ignore_patterns("results*", "scores.csv")  # another test may have scored it
    shutil.copytree(trained.rd4ad, tmp_path / "runs" / "z_old", ignore=not_scored)
    for name, change in (("a_new", {"started": "2100-01-01T00:00:00"}), ("other", {"data_root": "/elsewhere"})):
        folder = shutil.copytree(trained.rd4ad, tmp_path / "runs" / name, ignore=not_scored)
        config = json.loads((folder / "config.json").read_text()) | {"started": "2200-01-01T00:00:00"} | change
        (folder / "config.json").write_text(json.dumps(config))
    result = run_test(tmp_path, "--data_root", trained.data)
    assert result.status == 0, result.err
    assert result.out.startswith("runs/a_new ")
    assert [path.parent.name for path in tmp_path.glob("runs/*/results.csv")] == ["a_new"]


def test_scores_do_not_depend_on_batch_or_categories(trained, tmp_path):
    results = []
    for options in ((), ("--categories", "tile"), ("--batch_size", 3, "--workers", 2)):
        run = shutil.copytree(trained.aand, tmp_path / f"run{len(results)}")
        assert run_test(tmp_path, "--data_root", trained.data, "--run", run, *options).status == 0
        results.append(json.loads((run / "results.json").read_text())["categories"])
    assert list(results[0]) == ["bottle", "tile"]
    assert results[1] == {"tile": results[0]["tile"]}
    assert results[2] == {category: pytest.approx(row, abs=1e-3) for category, row in results[0].items()}


def test_stored_foregrounds_are_used(trained, tmp_path):
    for sample in open_dataset(trained.data).samples("tile", "train"):
        nothing = np.zeros((32, 32), np.uint8)  # no foreground: nothing can be painted, so the gate finds nothing
        write_image(fg_mask_path(tmp_path / "fg_mask", "mvtec", "tile", sample.image_path), nothing)
    options = ("--categories", "tile", "--aux_path", "builtin", "--output", "run")
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, *options)
    assert result.status == 0, result.err
    assert "made on the fly" not in result.out
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(r["amplify"] == 0 and "gate_recall" not in r for r in records if r["stage"] == 1)


def test_eval_every_logs_the_test_metrics(trained, tmp_path):
    options = ("--categories", "tile", "--method", "rd4ad", "--output", "run", "--eval_every", 1)
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, *options)
    assert result.status == 0, result.err
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert "Published protocol" in result.out
    assert "Published protocol" in (tmp_path / "run/log.txt").read_text()
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "run").status == 0
    scored = json.loads((tmp_path / "run/results.json").read_text())["categories"]["tile"]
    assert scored == {metric: pytest.approx(records[-1][metric], abs=1e-3) for metric in METRICS}
    assert [r.keys() & METRICS for r in records] == [set(METRICS)] * 2


# Data sets that lack something


def test_folder_without_masks_has_dashes(tmp_path):
    data = make_folder(tmp_path / "data", train=4, with_masks=False)
    assert run_train(tmp_path, "--data_root", data, *TINY, "--method", "rd4ad").status == 0
    result = run_test(tmp_path, "--data_root", data, "--save_maps")
    assert result.status == 0, result.err
    for row in ("widget", "Mean"):
        image_auroc, *others = table(result.out)[row]
        assert 0 <= float(image_auroc) <= 100
        assert others == ["–", "–"]
    [run] = (tmp_path / "runs").iterdir()
    assert json.loads((run / "results.json").read_text())["categories"]["widget"].keys() == {
        "image_auroc", "image_ap", "image_f1_max"
    }
    assert len(list((run / "maps").rglob("*.png"))) == 5


def test_folder_with_good_training_images_alone(tmp_path):
    data = make_folder(tmp_path / "data", train=4)
    shutil.rmtree(data / "widget/test")
    shutil.rmtree(data / "widget/ground_truth")
    result = run_train(tmp_path, "--data_root", data, *TINY, "--aux_path", "builtin", "--eval_every", 1)
    assert result.status == 0, result.err
    result = run_test(tmp_path, "--data_root", data)
    assert result.status == 2
    assert len(result.errors) == 1
    assert "widget" in result.errors[0]
    assert "nothing to score" in result.errors[0]


def test_missing_categories_are_named_and_skipped(trained, tmp_path):
    options = ("--categories", "wood", "tile", "--method", "rd4ad", "--output", "run")
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, *options)
    assert result.status == 0, result.err
    assert "not on disk, skipped: wood\n" in result.out
    data = shutil.copytree(trained.data, tmp_path / "data")
    shutil.rmtree(data / "bottle")
    result = run_test(tmp_path, "--data_root", data, "--run", shutil.copytree(trained.rd4ad, tmp_path / "both"))
    assert result.status == 0, result.err
    assert f"trained, but not in {data}: bottle" in result.err
    assert sorted(table(result.out)) == ["Category", "Mean", "tile"]
