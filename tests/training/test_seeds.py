"""Runs of several seeds: each as if it were trained alone, their common results, and going on with them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.support.commands import TINY, listing, run_test, run_train, same_weights
from tests.support.trees import make_folder
from utils.metrics import METRICS
from utils.runs.folder import Run, list_seeds, newest_run, open_runs, seed_folder, trained_categories
from utils.system.errors import RunError

PRINTED = ("image_auroc", "pixel_auroc", "aupro")


@pytest.fixture
def go_on(trained, seeded, tmp_path):
    """go_on(*options) calls train.py again on a copy of the run of several seeds; returns its result and the folder."""
    run = shutil.copytree(seeded.run, tmp_path / "run")

    def call(*options):
        base = ("--data_root", trained.data, *TINY, "--aux_path", "builtin", "--output", run)
        result = run_train(tmp_path, *base, *options)
        assert result.status == 0, result.err
        return result, run

    return call


def read_results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def table(out: str) -> dict[str, list[str]]:
    """The rows of the table of means and deviations: {category: cells}."""
    lines = out[out.index("(last epoch, mean ± standard deviation over ") :].splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if line.startswith("Mean"))
    rows = [re.split(" {2,}", line) for line in lines[: end + 1] if line.strip("-")]
    return {row[0]: row[1:] for row in rows}


# What is trained


def test_each_seed_equals_a_run_of_its_own(trained, seeded, tmp_path):
    for category in ("bottle", "tile"):
        assert same_weights(seeded.run / "seed0", trained.aand, category)
        assert not same_weights(seeded.run / "seed1", trained.aand, category)
    options = ("--seed", 1, "--categories", "bottle", "--aux_path", "builtin", "--output", "single")
    assert run_train(tmp_path, "--data_root", trained.data, *TINY, *options).status == 0
    assert same_weights(seeded.run / "seed1", tmp_path / "single", "bottle")
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "single").status == 0
    alone = read_results(tmp_path / "single")["categories"]["bottle"]
    assert read_results(seeded.run / "seed1")["categories"]["bottle"] == pytest.approx(alone, abs=1e-6)


def test_folders_of_a_run_of_several_seeds(seeded):
    assert {path.name for path in seeded.run.iterdir()} == {".lock", "seed0", "seed1", "results.csv", "results.json"}
    for seed in (0, 1):
        folder = seeded.run / f"seed{seed}"
        assert {path.name for path in folder.iterdir()} == {
            ".lock", "checkpoints", "config.json", "log.txt", "metrics.jsonl", "results.csv", "results.json",
            "scores.csv",
        }
        config = json.loads((folder / "config.json").read_text())
        assert config["seed"] == seed
        assert "seeds" not in config
        assert "--seeds 0 1 --eval_every 1 --output seeded" in config["command"]


# Results


def test_common_results_are_mean_and_deviation_of_the_seeds(seeded):
    """The sample standard deviation of two values is their distance / sqrt(2)."""
    common, *seeds = (read_results(folder) for folder in (seeded.run, seeded.run / "seed0", seeded.run / "seed1"))
    assert [results["seed"] for results in seeds] == common["seeds"] == [0, 1]
    assert common["test_files"] == seeds[0]["test_files"] == seeds[1]["test_files"]
    assert common["protocol"] == seeds[0]["protocol"]
    different = 0
    for category in ("bottle", "tile"):
        for metric in METRICS:
            a, b = (results["categories"][category][metric] for results in seeds)
            assert common["categories"][category][metric] == pytest.approx((a + b) / 2)
            assert common["std"]["categories"][category][metric] == pytest.approx(abs(a - b) / 2**0.5)
            different += a != b
    assert different >= 8
    for metric in METRICS:
        a, b = (sum(results["categories"][c][metric] for c in ("bottle", "tile")) / 2 for results in seeds)
        assert common["mean"][metric] == pytest.approx((a + b) / 2)
        assert common["std"]["mean"][metric] == pytest.approx(abs(a - b) / 2**0.5)
    with (seeded.run / "results.csv").open(newline="") as file:
        lines = {line["category"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["bottle", "tile", "Mean"]
    assert float(lines["tile"]["aupro [0..1]"]) == common["categories"]["tile"]["aupro"]
    assert float(lines["tile"]["aupro std"]) == common["std"]["categories"]["tile"]["aupro"]


def test_both_programs_print_and_write_the_same(trained, seeded, tmp_path):
    run = shutil.copytree(seeded.run, tmp_path / "run")
    before = {path.relative_to(run): path.read_text() for path in run.rglob("results.csv")}
    common = read_results(run)
    for path in run.rglob("results.*"):
        path.unlink()
    tested = run_test(tmp_path, "--data_root", trained.data, "--run", "run", "--batch_size", 2)
    assert tested.status == 0, tested.err
    assert {path.relative_to(run): path.read_text() for path in run.rglob("results.csv")} == before
    expected = {"Category": ["I-AUROC", "P-AUROC", "PRO"]}
    for name, mean, std in (
        *((c, common["categories"][c], common["std"]["categories"][c]) for c in ("bottle", "tile")),
        ("Mean", common["mean"], common["std"]["mean"]),
    ):
        expected[name] = [f"{100 * mean[metric]:.2f} ± {100 * std[metric]:.2f}" for metric in PRINTED]
    for out in (tested.out, seeded.out):
        assert table(out) == expected
        _, _, protocol = out[out.index("(last epoch, ") :].partition("Published protocol")
        assert [line.split()[0] for line in protocol.splitlines()[1:4]] == ["Category", "bottle", "tile"]
        assert re.search(r"^tile +[12], [12]  ", protocol, re.M)  # the epoch of each seed
        assert "±" in protocol


def test_newest_run_may_be_one_of_several_seeds(trained, seeded, tmp_path):
    shutil.copytree(trained.rd4ad, tmp_path / "runs/a_single")
    run = shutil.copytree(seeded.run, tmp_path / "runs/several")  # trained after the other
    assert newest_run(trained.data, tmp_path / "runs") == run
    Run(run / "seed1").category("bottle").stage(2).unlink()
    assert trained_categories(run) == ["tile"]  # of every seed
    result = run_test(tmp_path, "--data_root", trained.data)
    assert result.status == 0, result.err
    assert list(table(result.out)) == ["Category", "tile", "Mean"]
    assert "bottle" not in result.out
    Run(run / "seed0").category("tile").stage(2).unlink()
    assert trained_categories(run) == []
    assert newest_run(trained.data, tmp_path / "runs") == tmp_path / "runs/a_single"


# Going on


def kept(run: Path) -> dict[str, tuple[int, int]]:
    """What of a run training must not touch: settings, curves and weights."""
    return {path: value for path, value in listing(run).items() if path.endswith((".json", ".jsonl", ".pt"))}


def test_finished_seeds_are_skipped(go_on, tmp_path):
    """--seed means nothing beside --seeds."""
    before = {path: value for path, value in kept(tmp_path / "run").items() if not path.endswith("results.json")}
    assert sum(path.endswith(".pt") for path in before) == 10
    result, run = go_on("--seeds", 1, 0, "--seed", 5)
    assert re.findall("(bottle|tile): already trained, skipped", result.out) == ["bottle", "tile"] * 2
    assert kept(run).items() >= before.items()
    assert not (run / "seed5").exists()
    assert result.out.count("(last epoch, mean ± standard deviation over 2 seeds)") == 1


def test_a_third_seed_later_trains_only_that_one(go_on, tmp_path):
    before = {path: value for path, value in kept(tmp_path / "run").items() if not path.endswith("results.json")}
    result, run = go_on("--seeds", 7, "--categories", "bottle")
    assert "already trained" not in result.out
    assert kept(run).items() >= before.items()
    assert trained_categories(run) == ["bottle"]
    common = read_results(run)
    assert common["seeds"] == [0, 1, 7]
    assert common["categories"].keys() == {"bottle"}
    values = [read_results(run / f"seed{seed}")["categories"]["bottle"]["aupro"] for seed in (0, 1, 7)]
    assert len(set(values)) == 3
    mean = sum(values) / 3
    assert common["mean"]["aupro"] == pytest.approx(mean)
    assert common["std"]["mean"]["aupro"] == pytest.approx((sum((value - mean) ** 2 for value in values) / 2) ** 0.5)


def test_categories_that_not_all_seeds_have_are_not_scored(go_on, tmp_path):
    Run(tmp_path / "run/seed1").category("tile").stage(2).unlink()
    result, run = go_on("--seeds", 0)
    assert f"not scored: tile (no test images, or not trained yet for every seed in {run})" in result.out
    assert list(table(result.out)) == ["Category", "bottle", "Mean"]


def test_seeds_without_test_images_are_trained_and_not_scored(tmp_path):
    data = make_folder(tmp_path / "data", train=4)
    for folder in ("test", "ground_truth"):
        shutil.rmtree(data / "widget" / folder)
    options = ("--method", "rd4ad", "--seeds", 3, 4, "--output", "run")
    result = run_train(tmp_path, "--data_root", data, *TINY, *options)
    assert result.status == 0, result.err
    assert trained_categories(tmp_path / "run") == ["widget"]
    assert "not scored: widget (no test images" in result.out
    assert not list(tmp_path.rglob("results*"))


# Folders without training


def test_folders_of_seeds_are_in_the_order_of_numbers(tmp_path):
    with pytest.raises(RunError, match="is not a run folder of train.py: no config.json in it, and no seed0/"):
        open_runs(tmp_path)
    for name in ("seed10", "seed2", "seed0x", "seed", "seed1", "0"):
        (tmp_path / name).mkdir()
        if name != "seed1":
            (tmp_path / name / "config.json").touch()
    assert [run.folder.name for run in open_runs(tmp_path)] == ["seed2", "seed10"]
    assert [folder.name for folder in list_seeds(tmp_path)] == ["seed1", "seed2", "seed10"]
    assert seed_folder(tmp_path, 7) == tmp_path / "seed7"
    (tmp_path / "config.json").touch()
    assert open_runs(tmp_path) == [Run(tmp_path)]
    with pytest.raises(RunError, match=f"{tmp_path} holds a run of a single seed; choose another `output`"):
        seed_folder(tmp_path, 7)
