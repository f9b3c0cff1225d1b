"""scripts/export.py without --category and of runs with several seeds: which model is written."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from tests.support.commands import run_export
from tests.support.untrained import make_run, photographs
from utils.detection.model_file import EXTRA_FILE, Facts
from utils.runs.settings import read_config

pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPT = ("--format", "torchscript")


@torch.no_grad()
def scores_of(path):
    extra = {EXTRA_FILE: ""}
    _, scores = torch.jit.load(path, _extra_files=extra)(torch.tensor(photographs()))
    return scores.numpy(), Facts.from_text(extra[EXTRA_FILE])


def test_the_only_category_need_not_be_named(tmp_path):
    make_run(tmp_path / "run", category="cap")
    result = run_export(tmp_path, "run", *SCRIPT)
    assert result.status == 0, result.err
    assert scores_of(tmp_path / "run/exported/cap.pt")[1].category == "cap"


def test_of_several_categories_one_must_be_named(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    result = run_export(tmp_path, "run", *SCRIPT)
    assert result.status == 2
    assert result.errors == ["error: run has several categories; choose one of: bottle, tile"]
    result = run_export(tmp_path, "run", *SCRIPT, "--category", "teapot")
    assert result.status == 2 and "run has no trained teapot; it has: bottle, tile" in result.errors[0]
    assert not (run / "exported").exists()


def test_a_seed_is_chosen_as_for_predictions(seeded, tmp_path):
    shutil.copytree(seeded.run, tmp_path / "run")
    for seed, flags in ((0, ()), (1, ("--seed", 1))):
        result = run_export(tmp_path, "run", *SCRIPT, "--category", "tile", *flags)
        assert result.status == 0, result.err
        path = tmp_path / f"run/seed{seed}/exported/tile.pt"
        assert read_config(path.parents[1])["seed"] == seed
        alone = tmp_path / f"alone{seed}.pt"
        result = run_export(tmp_path, f"run/seed{seed}", *SCRIPT, "--category", "tile", "--output", alone)
        assert result.status == 0, result.err
        assert np.array_equal(scores_of(path)[0], scores_of(alone)[0])
    assert not np.array_equal(scores_of(path)[0], scores_of(tmp_path / "alone0.pt")[0])
    result = run_export(tmp_path, "run", *SCRIPT, "--category", "tile", "--seed", 7)
    assert result.status == 2 and "run has no seed 7; it has: 0, 1" in result.errors[0]
