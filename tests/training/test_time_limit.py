"""--time_limit: which epochs fit, what a trial measures, and runs that keep what was planned."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.commands import TINY, run_sweep, run_train, same_weights
from tests.support.stages import stop_at_check
from tests.support.trees import make_mvtec
from utils.training import forecast, time_limit
from utils.training.config import TrainConfig
from utils.training.plan import Plan
from utils.training.time_limit import TRIED, Cost, Trial, fitting_epochs, within_limit

FLAGS = ["--data_root", "data", *TINY, "--aux_path", "builtin", "--epochs_stage1", 8, "--epochs_stage2", 12]
PLANNED_FROM = {"time_limit": 2.0, "epochs_stage1": 8, "epochs_stage2": 12}


@pytest.fixture
def clock(monkeypatch):
    """A list whose only number is the time."""
    now = [0.0]
    for module in (forecast, time_limit):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr("utils.training.resumable.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.fixture
def folder(tmp_path):
    make_mvtec(tmp_path / "data", ["bottle", "tile"], train=4)
    return tmp_path


@pytest.fixture
def trials(monkeypatch):
    """The categories that were tried, in which each image takes a second of Stage I and half a second of Stage II."""
    tried = []

    def try_stages(name, data, config):
        tried.append(name)
        return {1: Cost(1.0, 0.0), 2: Cost(0.5, 0.0)}

    monkeypatch.setattr(time_limit, "try_stages", try_stages)
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr("utils.training.run.time", SimpleNamespace(perf_counter=lambda: 0.0))
    return tried


def config_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def epochs_of(run: Path) -> tuple[int, int]:
    return config_of(run)["epochs_stage1"], config_of(run)["epochs_stage2"]


@pytest.mark.parametrize(("asked", "epoch", "seconds", "epochs"), [
    ((100, 120), {1: 2.0, 2: 1.0}, 160, (50, 60)),  # half of 320 s
    ((100, 120), {1: 2.0, 2: 1.0}, 320, (100, 120)),
    ((100, 120), {1: 2.0, 2: 1.0}, 9999, (100, 120)),
    ((100, 120), {1: 2.0, 2: 1.0}, 40, (12, 15)),
    ((100, 120), {1: 2.0, 2: 1.0}, 3, (5, 5)),
    ((100, 120), {1: 2.0, 2: 1.0}, -3, (5, 5)),
    ((3, 120), {1: 2.0, 2: 1.0}, 1, (3, 5)),
    ((100, 120), {2: 1.0}, 30, (25, 30)),  # without Stage I
])
def test_equal_shares_of_both_stages_fit(asked, epoch, seconds, epochs):
    config = TrainConfig(Path(), epochs_stage1=asked[0], epochs_stage2=asked[1])
    assert tuple(fitting_epochs(config, epoch, seconds).values()) == epochs


@pytest.mark.parametrize(("changes", "epochs", "words"), [
    # 30 images are three times the first category: 27 min of the 30 less 2 min spent and 3 x (1 + 4) min around the
    # steps, 10 min; an epoch takes 30 x 0.1 s and 30 x 0.2 s: 100 + 120 take 17 min
    ({}, (58, 70), "--time_limit 30: 58 + 70 of 100 + 120 epochs, about 27 min in all"),
    # test metrics of a minute in each tenth epoch: 3 x 6 s more an epoch; 10 min of 53 min
    ({"eval_every": 10}, (18, 22), "--time_limit 30: 18 + 22 of 100 + 120 epochs, about 27 min in all"),
    ({"time_limit": 400.0}, (100, 120), "--time_limit 400: 100 + 120 of 100 + 120 epochs, about 34 min in all"),
    ({"time_limit": 10.0}, (5, 5), "warning: --time_limit 10 is too short: the least, 5 + 5 epochs, take about 18 min "
     "in all; fewer --categories, a smaller --image_size or another --backbone take less"),
    # of two seeds all is double: 54 min less 2 min spent and 30 min around; 22 min of 34 min
    ({"seeds": [3, 4], "time_limit": 60.0}, (64, 77), "--time_limit 60: 64 + 77 of 100 + 120 epochs, about 54 min in "
     "all"),
])
def test_the_whole_training_is_planned(clock, monkeypatch, capsys, changes, epochs, words):
    costs = {1: Cost(0.1, 60.0), 2: Cost(0.2, 240.0, 60.0)}
    monkeypatch.setattr(time_limit, "try_stages", lambda name, data, config: costs)
    samples = {name: SimpleNamespace(train=[None] * images) for name, images in {"a": 10, "b": 20}.items()}
    config = TrainConfig(Path(), **{"time_limit": 30.0} | changes)
    clock[0] = 220.0
    plan, paces = within_limit(Plan(config, None, samples, None), lambda name: None, started=100.0)
    assert (plan.config.epochs_stage1, plan.config.epochs_stage2) == epochs
    assert capsys.readouterr().err == f"{words}\n"
    assert paces == {1: 0.1, 2: 0.2}


def test_a_trial_measures_steps_and_what_is_around_them(clock):
    """Of seven images in batches of three: three steps an epoch, the last with one image."""
    trial = Trial(2, 7, TrainConfig(Path(), batch_size=3, torch_device=torch.device("cpu")))
    assert trial.needed_epochs == 4 and Trial(2, 1000, TrainConfig(Path())).needed_epochs == 1
    clock[0] += 30  # features
    for epoch in trial.epochs(4):
        for images in trial.steps([3, 3, 1]):
            clock[0] += 2 * images
        clock[0] += 5 if epoch == 4 else 0
        trial.log(epoch, {})
    assert trial.measured() == Cost(2.0, 35.0, 5.0)


def test_a_trial_takes_few_steps_of_a_long_epoch(clock):
    trial = Trial(1, 1000, TrainConfig(Path(), batch_size=3, torch_device=torch.device("cpu")))
    assert [list(trial.steps(range(1000))) for _ in trial.epochs(trial.needed_epochs)] == [[*range(TRIED)]]


def test_a_real_trial_changes_no_result(trained, tmp_path):
    options = ["--data_root", trained.data, *TINY, "--aux_path", "builtin", "--output", "run", "--eval_every", 1]
    result = run_train(tmp_path, *options, "--time_limit", 600)
    assert result.status == 0, result.err
    assert "--time_limit 600: 2 + 2 of 2 + 2 epochs, about " in result.err
    assert all(same_weights(tmp_path / "run", trained.aand, category) for category in ("bottle", "tile"))


def test_planned_epochs_are_settings_of_the_run(folder, trials):
    """Eight images, 108 s: an epoch takes 8 s and 4 s, all of them 112 s; 96 % are 7 and 11 epochs."""
    result = run_train(folder, *FLAGS, "--time_limit", 2, "--output", "run")
    assert result.status == 0, result.err
    assert "--time_limit 2: 7 + 11 of 8 + 12 epochs, about 2 min in all" in result.err
    assert epochs_of(folder / "run") == (7, 11) and config_of(folder / "run")["planned_from"] == PLANNED_FROM
    assert trials == ["bottle"]
    same = [*FLAGS, "--epochs_stage1", 7, "--epochs_stage2", 11]  # and the learning rate falls where theirs does
    assert run_train(folder, *same, "--output", "plain").status == 0
    assert same_weights(folder / "run", folder / "plain", "tile")
    assert run_train(folder, "--config", folder / "run/config.json", "--output", "again").status == 0
    assert epochs_of(folder / "again") == (7, 11) and "planned_from" not in config_of(folder / "again")
    assert trials == ["bottle"]


def test_a_run_that_goes_on_keeps_its_epochs(folder, trials, monkeypatch):
    limited = [*FLAGS, "--time_limit", 2]
    with monkeypatch.context() as patch:
        stop_at_check(patch, 4)
        assert run_train(folder, *limited).status == 143
    [run] = (folder / "runs").iterdir()
    monkeypatch.setattr(time_limit, "try_stages", lambda *arguments: pytest.fail("planned anew"))
    with monkeypatch.context() as patch:
        stop_at_check(patch, 30)
        resumed = run_train(folder, "--resume", run)
    assert resumed.status == 143 and "bottle: stage 1 goes on in epoch 2, step 1" in resumed.out
    result = run_train(folder, *limited)
    assert result.status == 0 and "going on with the unfinished" in result.err
    assert epochs_of(run) == (7, 11)
    assert [path.name for path in (folder / "runs").iterdir()] == [run.name]
    for others in (["--time_limit", 3], ["--epochs_stage1", 9, "--time_limit", 2], []):
        refused = run_train(folder, *FLAGS, *others, "--output", run)
        assert refused.status == 2 and f"planned_from: {PLANNED_FROM} -> " in refused.errors[0]


def test_seeds_share_their_epochs(folder, trials, monkeypatch):
    limited = [*FLAGS, "--categories", "tile", "--time_limit", 1.5, "--output", "run"]
    assert run_train(folder, *limited, "--seeds", 0, 1).status == 0  # 81 s for two seeds of 4 images: 72 % of 112 s
    monkeypatch.setattr(time_limit, "try_stages", lambda *arguments: pytest.fail("planned anew"))
    assert run_train(folder, *limited, "--seeds", 2).status == 0
    assert [epochs_of(folder / f"run/seed{seed}") for seed in (0, 1, 2)] == [(5, 8)] * 3


def test_a_method_without_epochs_has_none_to_plan(folder, trials):
    result = run_train(folder, *FLAGS, "--method", "patchcore", "--time_limit", 1, "--output", "run")
    assert result.status == 0, result.err
    assert "--time_limit: patchcore has a single epoch, so there are none to plan" in result.err
    assert trials == [] and "planned_from" not in config_of(folder / "run")


def test_a_sweep_refuses_it(folder):
    result = run_sweep(folder, "--data_root", "data", "--store", "store", "--methods", "rd4ad", "--seeds", 0,
                       "--time_limit", 5)
    assert result.status == 2
    assert "--time_limit of train.py cannot be passed on: each task would have other epochs" in result.err
