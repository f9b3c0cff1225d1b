"""Runs of train.py: settings and seed alone decide on the weights, and a run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import TINY, read_state, run_train, same_state, same_weights
from utils.runs.folder import Run, trained_categories


@pytest.fixture
def train_again(trained, tmp_path):
    """train_again(*options) trains as the fixture `trained` did, with other options; returns its result and folder."""

    def call(*options, output=tmp_path / "again"):
        base = ("--data_root", trained.data, *TINY, "--aux_path", "builtin", "--output", output)
        result = run_train(trained.cwd, *base, *options)
        assert result.status == 0, result.err
        return result, output

    return call


def copy_run(run: Path, target: Path) -> Path:
    shutil.copytree(run, target)
    return target


# What the weights depend on


def test_weights_have_been_trained_and_differ_between_categories(trained):
    for stage in (1, 2):
        first, second = (read_state(Run(trained.aand).category(name).stage(stage)) for name in ("bottle", "tile"))
        assert not same_state(first, second)
    assert not same_weights(trained.aand, trained.rd4ad, "bottle")


def test_one_category_alone_equals_the_full_run(trained, train_again):
    _, run = train_again("--categories", "tile")
    assert trained_categories(run) == ["tile"]
    assert same_weights(run, trained.aand, "tile")
    train_again("--categories", "bottle")  # the other one afterwards: the order does not matter
    assert trained_categories(run) == ["bottle", "tile"]
    assert same_weights(run, trained.aand, "bottle")


@pytest.mark.parametrize(
    "options", ["", "--workers 2", "--eval_every 1", "--cache disk", "--cache none", "--cache_features off"]
)
def test_weights_do_not_depend_on(trained, train_again, options):
    _, run = train_again("--categories", "bottle", *options.split())
    assert same_weights(run, trained.aand, "bottle")


@pytest.mark.parametrize("option", ["--seed 1", "--lr 0.001", "--batch_size 4"])
def test_weights_depend_on(trained, train_again, option):
    _, run = train_again("--categories", "bottle", *option.split())
    for stage in (1, 2):
        first, second = (read_state(Run(folder).category("bottle").stage(stage)) for folder in (run, trained.aand))
        assert not same_state(first, second)


def test_test_images_influence_nothing(trained, tmp_path):
    data = copy_run(trained.data, tmp_path / "data")
    shutil.rmtree(data / "bottle/test/hole")
    shutil.rmtree(data / "bottle/ground_truth/hole")
    options = ("--categories", "bottle", "--aux_path", "builtin", "--output", "run", "--eval_every", 1)
    assert run_train(tmp_path, "--data_root", data, *TINY, *options).status == 0
    assert same_weights(tmp_path / "run", trained.aand, "bottle")


# Going on


def test_finished_categories_are_skipped(trained, train_again, tmp_path):
    run = copy_run(trained.aand, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.pt")}
    lines = (run / "metrics.jsonl").read_text()
    result, _ = train_again(output=run)
    assert "bottle: already trained, skipped" in result.out
    assert "tile: already trained, skipped" in result.out
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.pt")} == before
    assert (run / "metrics.jsonl").read_text() == lines


def test_interrupted_category_goes_on_from_stage1(trained, train_again, tmp_path):
    run = copy_run(trained.aand, tmp_path / "run")
    Run(run).category("tile").stage(2).unlink()
    written = Run(run).category("tile").stage(1).stat().st_mtime_ns
    result, _ = train_again(output=run)
    assert "bottle: already trained, skipped" in result.out
    assert "tile: stage 1 already trained" in result.out
    assert Run(run).category("tile").stage(1).stat().st_mtime_ns == written
    assert same_weights(run, trained.aand, "tile")


def test_changed_settings_are_refused_with_the_difference(trained, tmp_path):
    run = copy_run(trained.aand, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    options = ("--aux_path", "builtin", "--output", run, "--lr", 0.001, "--seed", 7)
    result = run_train(trained.cwd, "--data_root", trained.data, *TINY, *options)
    assert result.status == 2
    assert result.err.count("error: ") == 1
    assert f"error: {run} holds a run with other settings" in result.err
    assert "lr: 0.005 -> 0.001" in result.err
    assert "seed: 0 -> 7" in result.err
    assert "backbone" not in result.err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_rd4ad_has_no_stage1_and_needs_no_textures(trained, tmp_path):
    options = ("--data_root", trained.data, *TINY, "--method", "rd4ad", "--categories", "bottle", "--output", "run")
    result = run_train(tmp_path, *options)  # no --aux_path, and no DTD beside the data
    assert result.status == 0, result.err
    run = tmp_path / "run"
    assert Run(run).category("bottle").stage(2).is_file()
    assert not Run(run).category("bottle").stage(1).exists()
    assert {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()} == {2}
    assert same_weights(run, trained.rd4ad, "bottle")
