"""The plan of a sweep, its store, its flags, and the time that it is expected to take."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import TINY, run_sweep
from tests.support.sweeps import task
from tests.support.trees import make_mvtec, make_visa
from utils.sweep.plan import Estimate
from utils.system import packages

FLAGS = ["--aux_path", "builtin", *TINY]


@pytest.fixture
def data(tmp_path) -> Path:
    make_mvtec(tmp_path / "mvtec", ["bottle", "tile"], train=3)
    make_mvtec(tmp_path / "mvtec", ["bottle"], train=5)
    make_visa(tmp_path / "visa", ["candle"], train=4)
    return tmp_path


def test_the_costliest_task_comes_first(data):
    """bottle has 5 images and 4 epochs (aand) or 2 (rd4ad), candle 4, tile 3."""
    arguments = ("--data_root", "mvtec", "visa", "--categories", "all", "--methods", "rd4ad", "aand", "--seeds", 0, 3,
                 "--store", "store", *FLAGS)
    result = run_sweep(data, *arguments, "--list")
    assert result.out.splitlines() == [f"{n}\t{key}" for n, key in enumerate([
        "mvtec/aand/seed0/bottle", "mvtec/aand/seed3/bottle", "visa/aand/seed0/candle", "visa/aand/seed3/candle",
        "mvtec/aand/seed0/tile", "mvtec/aand/seed3/tile", "mvtec/rd4ad/seed0/bottle", "mvtec/rd4ad/seed3/bottle",
        "visa/rd4ad/seed0/candle", "visa/rd4ad/seed3/candle", "mvtec/rd4ad/seed0/tile", "mvtec/rd4ad/seed3/tile",
    ])]
    shown = run_sweep(data, *arguments, "--dry_run").out
    assert re.search(r"^ +0 +mvtec/aand/seed0/bottle +20 image-epochs +unknown$", shown, re.M)
    assert "No time is known" in shown
    shown = run_sweep(data, *arguments, "--dry_run", "--seconds_per_image_epoch", 60, "--slots", 3).out
    # twice 20 16 12 10 8 6: on three slots 20 20 16 | 16 12 12 | ... = 48, 144 in all
    assert "one after the other 2 h 24 min; on 3 slots 48 min 0 s, of which the work itself makes 48 min 0 s" in shown
    assert not (data / "store").exists()


@pytest.mark.parametrize(("flags", "message"), [
    (["--epoch_stage1", 3], "unrecognized arguments: --epoch_stage1"),
    (["--epochs_stage1", 0], "argument --epochs_stage1: 0 is below 1"),
    (["--method", "aand"], "--method of train.py cannot be passed on"),
    (["--output=x"], "--output of train.py cannot be passed on"),
    (["--categories", "bottle", "no-such"], "none of the data sets has no-such"),
    (["--methods", "aand", "rd4ad", "--recipe", "robust"], "--recipe robust: there is none for --methods rd4ad"),
    (["--gpus", "1.5"], "neither a whole number nor a share"),
    (["--task", "99"], "there are 3 tasks, numbered from 0"),
    (["--data_root", "mvtec", "other/mvtec"], "whose names must differ"),
    (["--store", "memory://x"], "do not see it"),
])
def test_wrong_calls_are_one_line(data, flags, message):
    make_mvtec(data / "other/mvtec")
    result = run_sweep(data, "--data_root", "mvtec", "visa", "--store", "store", *FLAGS, *flags)
    assert result.status == 2
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_store_keeps_to_the_settings_it_was_started_with(data):
    base = ("--data_root", "mvtec", "--store", "store", *FLAGS)
    assert run_sweep(data, *base, "--task", 99).status == 2
    assert (data / "store/sweep.json").is_file()
    for flags, message in ((["--lr", 0.1], "lr: 0.005 -> 0.1"), (["--epochs_stage1", 3, "--epochs_stage2", 3],
                           "epochs_stage1: 2 -> 3; epochs_stage2: 2 -> 3")):
        result = run_sweep(data, *base, *flags, "--dry_run")
        assert result.status == 2
        assert f"holds a sweep with other settings ({message}); choose another --store" in result.err
    make_mvtec(data / "other/mvtec")
    other = run_sweep(data, "--data_root", "other/mvtec", "--store", "store", *FLAGS, "--dry_run")
    assert f"mvtec: {data / 'mvtec'} -> {data / 'other/mvtec'}" in other.err
    kept = json.loads((data / "store/sweep.json").read_text())
    earlier = kept | {"settings": kept["settings"] | {"select": "last", "holdout": 0.1}}  # flags that there were
    (data / "store/sweep.json").write_text(json.dumps(earlier))
    for flags in (["--workers", 3, "--seeds", 4], ["--data_root", "visa"]):  # change no result
        assert run_sweep(data, *base, *flags, "--dry_run").status == 0


def test_without_ray_the_message_says_how_to_get_it(data, monkeypatch):
    def nothing(name):
        if name == "ray":
            raise ImportError(f"No module named {name!r}")
        return sys.modules[name]

    import fsspec.core  # noqa: F401

    monkeypatch.setattr(packages, "import_module", nothing)
    result = run_sweep(data, "--data_root", "mvtec", "--store", "store", *FLAGS)
    assert result.status == 2
    assert "scripts/sweep.py needs the package ray: pip install -r requirements-cluster.txt" in result.err


def test_expected_seconds_are_measured_before_they_are_given():
    estimate = Estimate(given=2.0)
    assert estimate.of(task("a", 10)) == 20
    estimate.add("aand", 30.0, 10)
    estimate.add("aand", 10.0, 10)
    assert estimate.of(task("a", 10)) == 20  # 40 / 20 * 10
    assert estimate.of(task("a", 10, "rd4ad")) == 20  # as given
    unknown = Estimate()
    assert unknown.of(task("a")) is None
    unknown.add("aand", 30.0, 10)
    assert unknown.of(task("a", 5, "rd4ad")) == 15  # as the others
