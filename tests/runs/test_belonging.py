"""Files that belong together say so: those of another seed or model in a run are refused, with both files named."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.commands import (
    OWN,
    run_calibrate,
    run_compare,
    run_predict,
    run_report,
    run_test,
    run_train,
    same_weights,
)
from tests.support.trees import good_image, write_image
from utils.detection.detector import load_detector
from utils.detection.thresholds import GIVEN, LargestPixels, Thresholds, read_thresholds, write_thresholds
from utils.export.formats import ExportSource
from utils.runs.folder import Run
from utils.system.errors import CheckpointError, RunError
from utils.system.signals import Interrupted
from utils.training import category as training
from utils.training.resumable import ResumableStage

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def seeds(seeded, tmp_path) -> tuple[Path, Path]:
    """Two runs of the same settings but for the seed."""
    for seed in (0, 1):
        shutil.copytree(seeded.run / f"seed{seed}", tmp_path / f"run{seed}")
    return tmp_path / "run0", tmp_path / "run1"


def change(path: Path, **values) -> None:
    """Write a checkpoint with other values; None: without them."""
    content = torch.load(path, weights_only=True) | values
    torch.save({name: value for name, value in content.items() if value is not None}, path)


def forget(run: Path) -> None:
    """Make the files of a run what they were before they said what they belong to."""
    for path in run.rglob("stage*.pt"):
        change(path, made_with=None)
    for path in run.rglob("thresholds.json"):
        content = json.loads(path.read_text())
        del content["model"]
        path.write_text(json.dumps(content))


def load(run: Path, category: str = "tile"):
    return Run(run).category(category).load_model()


# Stages


@pytest.mark.parametrize(("name", "blamed", "other"), [
    ("tile/stage1.pt", "tile/stage1.pt", "trained with seed 1, the run has 0"),
    ("tile/stage2.pt", "tile/stage2.pt", "trained with seed 1, the run has 0"),
    ("teacher.pt", "tile/stage1.pt", "trained with another teacher.pt than {}/checkpoints/teacher.pt"),
])
def test_a_file_of_another_seed_is_refused(seeds, name, blamed, other):
    run, second = seeds
    shutil.copy(second / "checkpoints" / name, run / "checkpoints" / name)
    message = f"{run}/checkpoints/{blamed} was {other.format(run)}"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(run)
    result = run_predict(run, run, *sorted(run.rglob("none.png")) or ["x.png"], "--category", "tile")
    assert result.status == 2 and len(result.errors) == 1 and message in result.errors[0]


def test_stages_of_the_same_seed_and_another_training_are_told_apart(seeds):
    """As after training once more: the seed is the same, the numbers are not."""
    run, _ = seeds
    path = Run(run).category("tile").stage(1)
    content = torch.load(path, weights_only=True)
    name = next(iter(content["amplification"]))
    content["amplification"][name][0] += 1e-3
    torch.save(content, path)
    named = f"{Run(run).category('tile').stage(2)} was trained with another stage1.pt than {path}: "
    with pytest.raises(CheckpointError, match=re.escape(named)):
        load(run)


def test_a_seed_is_compared_where_there_is_no_first_stage(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    load(run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"seed": 7}))
    with pytest.raises(CheckpointError, match=r"stage2\.pt was trained with seed 0, the run has 7"):
        load(run)


@pytest.mark.parametrize(("name", "value"), [("epochs_stage2", 40), ("lr", 0.5), ("batch_size", 3)])
def test_settings_of_another_training_are_refused(trained, tmp_path, name, value):
    """A last stage of another number of epochs has the same seed, and stands upon the same files."""
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {name: value}))
    named = f"{Run(run).category('tile').stage(2)} was trained with {name} {config[name]}, the run has {value}"
    with pytest.raises(CheckpointError, match=re.escape(named)):
        load(run)
    moved = {"data_root": "/moved", "workers": 9, "a later setting": 1}
    (run / "config.json").write_text(json.dumps(config | moved))
    load(run)


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_another_view_is_refused(seeds, how):
    run, _ = seeds
    path = run / "checkpoints/tile/view.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"white": 200.0})) if how == "changed" else path.unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"trained with another view.json than {path}")):
        load(run)


def test_files_from_before_do_not_say_and_are_taken(seeds):
    run, second = seeds
    before = [tensor.clone() for tensor in load(run)[0].state_dict().values()]
    forget(run)
    assert all(map(torch.equal, before, load(run)[0].state_dict().values()))
    forget(second)
    shutil.copy(Run(second).category("tile").stage(1), Run(run).category("tile").stage(1))
    load(run)


@pytest.mark.parametrize("value", [3, [1], torch.zeros(2)], ids=str)
def test_what_is_said_may_be_anything(seeds, value):
    run, _ = seeds
    for made_with in (value, {"seed": value, "teacher.pt": value}):
        change(Run(run).category("tile").stage(2), made_with=made_with)
        with pytest.raises(CheckpointError, match=re.escape(str(Run(run).category("tile").stage(2)))):
            load(run)


# Progress of a stage


def test_progress_of_another_run_is_refused_and_that_from_before_taken(tmp_path, trained, monkeypatch):
    options = ("--data_root", trained.data, *OWN, "--categories", "tile", "--method", "rd4ad")

    def stop(*arguments) -> None:
        raise Interrupted(2)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", stop)
        patch.setattr(ResumableStage, "remove", lambda self: None)
        for seed in (0, 1):
            flags = ("--seed", seed, "--epochs_stage2", 2, "--output", f"run{seed}")
            assert run_train(tmp_path, *options, *flags).status == 130
    paths = [Run(tmp_path / f"run{seed}").category("tile").progress(2) for seed in (0, 1)]
    whole = paths[0].read_bytes()
    shutil.copy(paths[1], paths[0])
    go_on = ("--resume", "run0")
    result = run_train(tmp_path, *go_on)
    assert result.status == 1 and "cannot go on with something else (made with seed: 1 -> 0" in result.out + result.err
    paths[0].write_bytes(whole)
    identity = torch.load(paths[0], weights_only=True)["identity"]
    assert any(name.startswith("made with ") for name in identity)
    change(paths[0], identity={name: now for name, now in identity.items() if not name.startswith("made with")})
    result = run_train(tmp_path, *go_on)
    assert result.status == 0 and "stage 2 goes on" in result.out
    assert run_train(tmp_path, *options, "--epochs_stage2", 2, "--output", "whole").status == 0
    assert same_weights(tmp_path / "run0", tmp_path / "whole", "tile")


# Thresholds


@pytest.fixture
def good(tmp_path) -> Path:
    import numpy as np

    for number in range(3):
        write_image(tmp_path / f"good/{number}.png", good_image(np.random.default_rng(50 + number), 32))
    return tmp_path / "good"


def test_thresholds_of_another_model_are_refused_wherever_they_are_used(seeds, trained, good):
    for run in seeds:
        assert run_calibrate(good, run, "--categories", "tile", "--images", good, "--far", 0.3).status == 0
    first, second = (Run(run).category("tile").thresholds for run in seeds)
    kept = json.loads(first.read_text())["model"]
    assert kept != json.loads(second.read_text())["model"] and load_detector(seeds[0], "tile").thresholds.model == kept
    shutil.copy(second, first)
    named = f"{first} was set by another model than {Run(seeds[0]).category('tile').stage(2)}"
    for use in (lambda: load_detector(seeds[0], "tile"), lambda: ExportSource.of(seeds[0], "tile")):
        with pytest.raises(RunError, match=re.escape(named)):
            use()
    (seeds[0] / "scores.csv").unlink()
    scored = run_test(good, "--data_root", trained.data, "--run", seeds[0], "--categories", "tile")
    for result in (scored, run_calibrate(good, seeds[0], "--categories", "tile", "--far", 0.4)):
        assert result.status == 2 and named in result.errors[0]
    assert not (seeds[0] / "scores.csv").exists() and first.read_bytes() == second.read_bytes()
    assert run_calibrate(good, seeds[0], "--categories", "tile", "--images", good, "--far", 0.3).status == 0
    assert load_detector(seeds[0], "tile").thresholds.model == kept


def test_damaged_thresholds_are_made_anew(seeds, good):
    Run(seeds[0]).category("tile").thresholds.write_text("{")
    with pytest.raises(RunError, match="make it anew with scripts/calibrate.py"):
        load_detector(seeds[0], "tile")
    assert run_calibrate(good, seeds[0], "--categories", "tile", "--images", good, "--far", 0.3).status == 0
    assert len(load_detector(seeds[0], "tile").thresholds.scores) == 3


def test_thresholds_from_before_have_no_model(own, tmp_path):
    run = shutil.copytree(own.run, tmp_path / "run")
    found = load_detector(run).thresholds
    forget(run)
    assert load_detector(run).thresholds == replace(found, model=None)
    pixels = LargestPixels()
    pixels.add(torch.ones(1, 4, 4).numpy())
    plain = Thresholds.from_scores([1.0], pixels, 0.5, GIVEN)
    write_thresholds(run, "widget", plain)
    assert "model" not in json.loads(Run(run).category("widget").thresholds.read_text())
    assert read_thresholds(run, "widget", "another") == plain
    assert plain.at(0.9).model is None and replace(plain, model="m").at(0.9).model == "m"
    with pytest.raises(ValueError, match="model: expected str"):
        Thresholds.from_dict(plain.to_dict() | {"model": 3})


# Results


def test_results_of_another_model_are_made_anew_for_a_report(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    arguments = ("--data_root", trained.data, "--categories", "tile")
    assert run_test(tmp_path, *arguments, "--run", run).status == 0
    path = run / "results.json"
    whole = json.loads(path.read_text())
    assert list(whole["models"]) == ["tile"] and len(whole["models"]["tile"]) == 64
    wrong = json.dumps(whole | {"categories": {"tile": {"image_auroc": 0.125}}, "mean": {"image_auroc": 0.125}})
    path.write_text(wrong)
    assert run_report(tmp_path, run, *arguments).status == 0
    assert path.read_text() == wrong  # of the model that is there: believed
    path.write_text(wrong.replace(whole["models"]["tile"], "0" * 64))
    assert run_report(tmp_path, run, *arguments).status == 0
    assert json.loads(path.read_text())["categories"] == whole["categories"]


def test_results_beside_the_settings_of_another_run_are_refused(seeded, tmp_path):
    run = shutil.copytree(seeded.run, tmp_path / "run")
    shutil.copy(run / "seed1/results.json", run / "seed0/results.json")
    result = run_compare(tmp_path, run, run / "seed1")
    named = f"{run / 'seed0/results.json'} is of another run than {run / 'seed0/config.json'}: seed 1, not 0"
    assert result.status == 2 and named in result.errors[0]
    results = json.loads((run / "seed1/results.json").read_text())
    results["training"]["started"] = "2020-01-01T00:00:00"
    (run / "seed1/results.json").write_text(json.dumps(results))
    assert "started '2020-01-01T00:00:00', not '20" in run_compare(tmp_path, run / "seed1", seeded.run).errors[0]


# Damage


@pytest.mark.parametrize("name", ["teacher.pt", "tile/stage1.pt", "tile/stage2.pt"])
def test_a_changed_number_is_damage(seeds, name):
    """One bit of a checkpoint's numbers: they stay finite, and of the right shapes."""
    path = seeds[0] / "checkpoints" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + ".*it is damaged"):
        load(seeds[0])
    assert Run(seeds[0]).teacher.exists()
