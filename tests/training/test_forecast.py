"""The time that a training still takes: by scripted clocks, said once or twice, and of what is left alone."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.commands import TINY, run_train, same_weights
from tests.support.stages import stop_at_check
from tests.support.trees import make_mvtec
from utils.runs.folder import Run
from utils.training import forecast as module
from utils.training.config import TrainConfig
from utils.training.forecast import Forecast, StepTimer, describe, roughly
from utils.training.resumable import ResumableStage
from utils.training.run import SeedRun

CPU = torch.device("cpu")
FLAGS = ["--data_root", "data", *TINY, "--aux_path", "builtin", "--epochs_stage1", 8, "--epochs_stage2", 8]
SAID = re.compile(r"about \d.*")


@pytest.fixture
def clock(monkeypatch):
    """A list whose only number is the time of the clock that steps are measured by."""
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.fixture
def steady(monkeypatch):
    """Each step takes a second: in batches of two images half a second an image."""
    seconds = iter(range(100_000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


def take(forecast: Forecast, stage: ResumableStage, clock: list[float], *seconds: float) -> list[str]:
    """The lines that steps of four images give, each of which takes so long."""
    lines = []
    for one in seconds:
        clock[0] += one
        lines.append(forecast.tick(stage, 4))
    return [line for line in lines if line]


def test_the_pace_is_the_median_without_the_first_steps(clock):
    timer = StepTimer(CPU)
    for seconds in (90, 40, 2, 2, 2, 2, 4, 4, 4, 80, 500):
        assert not timer.is_done or seconds == 500
        clock[0] += seconds
        timer.tick(4)
    assert timer.is_done and timer.seconds == 0.75  # between 2 / 4 and 4 / 4: the last step came too late


# 1500 images of 0.5 s, and 2500 of 0.5 s x 1.6, or x 0.5
@pytest.mark.parametrize(("backbone", "minutes"), [("resnet18", 46), ("efficientnet_lite1", 23)])
def test_stage_2_is_foretold_by_stage_1(clock, backbone, minutes):
    forecast = Forecast(backbone, CPU, lambda: [{"a": {1: 1000, 2: 2000}, "b": {1: 500, 2: 500}}])
    lines = take(forecast, ResumableStage(number=1), clock, 9, 9, *[2] * 30)
    assert lines == [f"about {minutes} min for this training (2 categories), measured on its first steps"]


@pytest.mark.parametrize(("seconds", "line"), [
    (3.9, None),  # 0.975 s an image, where 0.8 s was foretold
    (4.4, "about 18 min for this training (1 category, 2 seeds), measured on the first steps of stage 2 too"),
    (1.0, "about 4 min for this training (1 category, 2 seeds), measured on the first steps of stage 2 too"),
])
def test_it_is_said_again_where_it_is_more_than_a_quarter_away(clock, seconds, line):
    forecast = Forecast("resnet18", CPU, lambda: [{"a": {2: 500}}, {"a": {2: 500}}])
    assert len(take(forecast, ResumableStage(number=1), clock, *[2] * 10)) == 1
    second = ResumableStage(number=2)
    assert take(forecast, second, clock, *[seconds] * 10) == ([line] if line else [])
    assert take(forecast, ResumableStage(number=1), clock, *[70] * 20) == []  # of the next category


def test_what_a_trial_has_measured_is_known(clock):
    forecast = Forecast("resnet18", CPU, lambda: [{"a": {1: 60, 2: 60}}], {1: 7.0, 2: 3.5})
    assert take(forecast, ResumableStage(number=1), clock, *[2] * 10)[0].startswith("about 4 min")  # 30 s + 210 s


def test_steps_are_those_of_one_stage(clock):
    forecast = Forecast("resnet18", CPU, lambda: [{"a": {1: 60}}])
    for _ in range(5):  # nine steps each, too few
        assert take(forecast, ResumableStage(number=1), clock, *[2] * 9) == []


@pytest.mark.parametrize(("seconds", "words"), [
    (0.2, "1 s"), (59.4, "59 s"), (61, "1 min"), (3540, "59 min"), (3600 * 2 + 1200, "2 h 20 min"),
    (3600 * 24 * 3 + 3600 * 4, "3 days 4 h"), (86_400, "1 day 0 h"),
])
def test_times_in_words(seconds, words):
    assert roughly(seconds) == words


def test_what_is_left_in_words():
    assert describe([{}, {"a": {1: 1}}]) == "1 category"
    assert describe([{"a": {1: 1}}, {"a": {1: 1}, "b": {2: 1}}]) == "2 categories, 2 seeds"


def test_the_images_that_are_left(tmp_path):
    """Of seven images and 3 + 5 epochs: a finished category, one after Stage I, one that failed, one in Stage I."""
    names = ("done", "half", "failed", "begun")
    for name, stages in {"done": (1, 2), "half": (1,)}.items():
        for stage in stages:
            path = Run(tmp_path).category(name).stage(stage)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    plan = SimpleNamespace(samples={name: SimpleNamespace(train=[None] * 7) for name in names})
    config = TrainConfig(Path(), epochs_stage1=3, epochs_stage2=5)
    begun = SimpleNamespace(name="begun", stage=ResumableStage(number=1), shown=9)
    run = SeedRun(tmp_path, plan, config, None, None, failed=["failed"], begun=begun)
    assert run.images_left() == {"half": {2: 35}, "begun": {1: 12, 2: 35}}


def said(run: Path) -> list[str]:
    return SAID.findall((run / "log.txt").read_text())


def test_a_training_says_it_and_is_not_changed(tmp_path, steady, monkeypatch):
    make_mvtec(tmp_path / "data", ["bottle", "tile"], train=4)
    result = run_train(tmp_path, *FLAGS, "--output", "run")
    assert result.status == 0, result.err
    # After ten steps of two images, 12 and 32 images of Stage I and 64 of Stage II: 44 x 0.5 s + 64 x 0.25 s. Then 32
    # of Stage I and 12 and 32 of Stage II at 0.5 s, where 32 x 0.5 s + 44 x 0.25 s were foretold.
    lines = ["about 38 s for this training (2 categories), measured on its first steps",
             "about 38 s for this training (2 categories), measured on the first steps of stage 2 too"]
    assert said(tmp_path / "run") == lines
    assert SAID.findall(result.out) == lines
    monkeypatch.setattr(Forecast, "tick", lambda forecast, stage, images: None)
    assert run_train(tmp_path, *FLAGS, "--output", "silent").status == 0
    for category in ("bottle", "tile"):
        assert same_weights(tmp_path / "run", tmp_path / "silent", category)


def test_a_training_that_goes_on_counts_what_is_left(tmp_path, steady, monkeypatch):
    make_mvtec(tmp_path / "data", ["bottle", "tile"], train=4)
    with monkeypatch.context() as patch:
        stop_at_check(patch, 6)  # two steps and an epoch's end, twice
        assert run_train(tmp_path, *FLAGS, "--output", "run").status == 143
    assert said(tmp_path / "run") == []
    assert run_train(tmp_path, *FLAGS, "--output", "run").status == 0
    # After 4 + 10 steps of two images 4 and 32 images of Stage I, and 64 of Stage II at half the pace
    assert said(tmp_path / "run")[0].startswith("about 34 s for this training (2 categories), measured on its first")
    Run(tmp_path / "run").category("tile").stage(2).unlink()
    assert run_train(tmp_path, *FLAGS, "--output", "run").status == 0
    assert said(tmp_path / "run")[-1].startswith("about 6 s for this training (1 category), measured on its first")
