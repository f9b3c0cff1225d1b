"""Run folders without training: settings, the newest run, and the history of epochs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.commands import run_train
from utils.runs.folder import Run, newest_run, trained_categories
from utils.runs.history import RunLog, published_protocol, read_metrics
from utils.runs.resuming import open_run, unfinished_run
from utils.runs.settings import EARLIER, read_config
from utils.system.errors import RunError

SETTINGS = {
    "method": "aand", "backbone": "resnet18", "image_size": 256, "dataset": "mvtec", "data_root": "/data",
    "command": "python train.py", "seed": 0, "started": "2024-01-01T00:00:00", "categories": ["a"], "workers": 1,
}


def test_open_run_keeps_the_first_settings(tmp_path):
    open_run(tmp_path / "run", SETTINGS)
    open_run(tmp_path / "run", SETTINGS | {"started": "2025", "categories": ["b"], "workers": 0, "device": "cpu"})
    assert read_config(tmp_path / "run") == EARLIER | SETTINGS
    for changed in ({"seed": 1}, {"data_root": "/other"}, {"new": True}):
        with pytest.raises(RunError, match=f"{next(iter(changed))}: .* -> .*; choose another `output`"):
            open_run(tmp_path / "run", SETTINGS | changed)
    with pytest.raises(RunError, match=r"\(seed: 0 -> None\)"):
        open_run(tmp_path / "run", {name: value for name, value in SETTINGS.items() if name != "seed"})


def test_read_config_of_no_run(tmp_path):
    (tmp_path / "config.json").write_text("{")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=f"{folder} is not a run folder"):
            read_config(folder)
    (tmp_path / "config.json").write_text('{"method": "aand"}')
    with pytest.raises(RunError, match="missing required field backbone"):
        read_config(tmp_path)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"a"', "{}", DEEP, "NaN", '{"method": "\\ud800"}', "\udcff"])
def test_any_content_of_config_is_a_run_error(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=f"{tmp_path} is not a run folder"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("method", "simplenet", "method: invalid enum value 'simplenet'"),
        ("method", ["aand"], "method: expected str, got array"),
        ("recipe", None, "recipe: expected str, got null"),
        ("select", "best", "select: invalid enum value 'best'"),
        ("dataset", "auto", "dataset: invalid enum value 'auto'"),
        ("backbone", 18, "backbone: expected str, got int"),
        ("data_root", None, "data_root: expected str, got null"),
        ("command", {}, "command: expected str, got object"),
        ("started", 2024, "started: expected str, got int"),
        ("image_size", "256", "image_size: expected int | array, got str"),
        ("image_size", 256.0, "image_size: expected int | array, got float"),
        ("image_size", True, "image_size: expected int | array, got bool"),
        ("image_size", 0, "image_size: expected int >= 32"),
        ("image_size", 100, "image_size: expected int that's a multiple of 32"),
        ("image_size", 4128, "image_size: expected int <= 4096"),
        ("seed", -1, "seed: expected int >= 0"),
        ("seed", 0.5, "seed: expected int, got float"),
        ("seed", None, "seed: expected int, got null"),
        ("epochs_stage2", "120", "epochs_stage2: expected int, got str"),
        ("aux_path", 1, "aux_path: expected str | null, got int"),
        ("code", {"commit": None, "changed": False}, "code.commit: expected str, got null"),
        ("code", {"commit": "0123"}, "code: a commit, and whether it was changed, go together"),
    ],
)
def test_settings_of_another_kind(tmp_path, name, value, expected):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS | {name: value}))
    with pytest.raises(RunError) as caught:
        read_config(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not a run folder of train.py: config.json cannot be used ({expected})"


def test_settings_that_runs_have(tmp_path):
    code = [{"code": {}}, {"code": {"commit": "0", "changed": True}}]
    sizes, paths = [{"image_size": 32}, {"image_size": 4096}], [{"aux_path": None}, {"aux_path": "builtin"}]
    for more in [*code, *sizes, *paths, {"seed": 2**63 - 1}, {"other": [1, {"a": None}]}]:
        (tmp_path / "config.json").write_text(json.dumps(SETTINGS | more))
        assert read_config(tmp_path) == EARLIER | SETTINGS | more


def test_a_command_that_cannot_be_run_again(trained, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS | {"command": "python train.py 'no end"}))
    result = run_train(tmp_path, "--resume", tmp_path)
    assert result.status == 2
    [error] = result.errors
    assert "config.json has no command that can be run again (No closing quotation)" in error


def make_run(folder: Path, data: Path, started: str, stage: int | None = 2) -> Path:
    open_run(folder, SETTINGS | {"data_root": str(data.resolve()), "started": started})
    for path in [Run(folder).category("a").stage(stage)] if stage else []:
        path.parent.mkdir(parents=True)
        path.touch()
    return folder


def test_newest_run_of_a_data_set(tmp_path):
    runs, data, other = tmp_path / "runs", tmp_path / "x", tmp_path / "y"
    with pytest.raises(RunError, match="no trained run of .*x in .*; train one with train.py"):
        newest_run(data, runs)
    make_run(runs / "foreign", other, "2024-05-01T00:00:00")
    with pytest.raises(RunError, match=f"there are: {runs}/foreign \\(of {other}\\); choose one with `run`"):
        newest_run(data, runs)
    make_run(runs / "z_older", data, "2024-01-01T00:00:00")
    newer = make_run(runs / "a_newer", data, "2024-02-01T00:00:00")
    make_run(runs / "unfinished", data, "2024-03-01T00:00:00", stage=1)
    make_run(runs / "empty", data, "2024-04-01T00:00:00", stage=None)
    (runs / "broken").mkdir()
    (runs / "broken" / "config.json").write_text("{}")
    assert newest_run(data, runs) == newer
    assert newest_run(other, runs) == runs / "foreign"


def test_trained_categories(tmp_path):
    (tmp_path / "config.json").touch()
    for category, stage in (("b", 2), ("a", 2), ("c", 1)):
        Run(tmp_path).category(category).stage(stage).parent.mkdir(parents=True)
        Run(tmp_path).category(category).stage(stage).touch()
    Run(tmp_path).teacher.touch()
    assert trained_categories(tmp_path) == ["a", "b"]


def record(category, epoch, stage=2, **figures):
    return {"category": category, "stage": stage, "epoch": epoch, **figures}


def write_metrics(folder: Path, *records) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


def test_published_protocol_takes_the_best_epoch(tmp_path):
    write_metrics(
        tmp_path,
        record("a", 3, stage=1, loss=1.0),
        record("a", 1, image_auroc=0.5, aupro=0.9, loss=0.3),
        record("a", 2, image_auroc=0.875, aupro=0.25, pixel_ap=0.1, loss=0.2),
        record("a", 3, image_auroc=0.75, aupro=0.5, pixel_auroc=0.75, loss=0.1),
        record("b", 2, image_auroc=0.25),
        record("b", 3, loss=0.1),
        record("b", 4, image_auroc=1.0),
        record("c", 1, pixel_auroc=0.5),  # without image AUROC there is nothing to choose by
    )
    assert published_protocol(tmp_path) == {
        "a": {
            "epoch": 2, "metrics": {"image_auroc": 0.875, "aupro": 0.25, "pixel_ap": 0.1},
            "gain": {"image_auroc": 0.125, "aupro": -0.25},  # what both epochs have
        },
        "b": {"epoch": 4, "metrics": {"image_auroc": 1.0}, "gain": {"image_auroc": 0.0}},
    }


def test_published_protocol_takes_the_first_of_equal_epochs(tmp_path):
    curve = [(30, 0.75, 0.1), (40, 0.625, 0.4), (20, 0.75, 0.3), (10, 0.5, 0.2)]  # as written, not in order
    write_metrics(tmp_path, *(record("a", epoch, image_auroc=i, pixel_auroc=p) for epoch, i, p in curve))
    [chosen] = published_protocol(tmp_path).values()
    assert (chosen["epoch"], chosen["metrics"]["pixel_auroc"]) == (20, 0.3)
    assert chosen["gain"]["image_auroc"] == 0.125


def test_an_epoch_that_was_run_twice_counts_once(tmp_path):
    write_metrics(
        tmp_path,
        record("a", 1, stage=1, loss=9.0),
        record("a", 1, image_auroc=1.0),
        record("a", 2, image_auroc=0.5),
        record("b", 1, image_auroc=0.5),
        record("a", 1, image_auroc=0.25),  # went on from the start of Stage II
        record("a", 2, loss=1.0),  # now without test metrics
        record("a", 3, image_auroc=0.125),
    )
    chosen = published_protocol(tmp_path)
    assert chosen["a"] == {"epoch": 1, "metrics": {"image_auroc": 0.25}, "gain": {"image_auroc": 0.125}}
    assert chosen["b"]["metrics"] == {"image_auroc": 0.5}
    found = [(r["category"], r["stage"], r["epoch"]) for r in read_metrics(tmp_path)]
    assert found == [("a", 1, 1), ("b", 2, 1), ("a", 2, 1), ("a", 2, 2), ("a", 2, 3)]


def test_no_metrics_file_is_no_curve(tmp_path):
    assert read_metrics(tmp_path) == []
    assert published_protocol(tmp_path) == {}


@pytest.mark.parametrize(
    "line",
    [
        '{"category": "a", "sta', "", "[1, 2]", "3", '{"category": "a", "epoch": 1}', DEEP, "\udcff",
        '{"category": 1, "stage": 2, "epoch": 1}',
        '{"category": "a", "stage": [2], "epoch": 1}',
        '{"category": "a", "stage": true, "epoch": 1}',
        '{"category": "a", "stage": 2, "epoch": 1.5}',
        '{"category": "a", "stage": 2, "epoch": 0}',
        '{"category": "a", "stage": 2, "epoch": 1, "loss": NaN}',
        '{"category": "a", "stage": 2, "epoch": 1, "loss": 1e400}',
        '{"category": "a", "stage": 2, "epoch": 1, "loss": 1e300}',
        '{"category": "a", "stage": 2, "epoch": 1, "loss": null}',
        '{"category": "a", "stage": 2, "epoch": 1, "loss": "0.5"}',
        '{"category": "a", "stage": 2, "epoch": 1, "image_auroc": 1.5}',
        '{"category": "a", "stage": 2, "epoch": 1, "synthetic_aupro": -0.5}',
    ],
)
def test_broken_line_of_metrics_is_named(tmp_path, line):
    whole = json.dumps(record("a", 1, image_auroc=0.5))
    (tmp_path / "metrics.jsonl").write_bytes(f"{whole}\n{line}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=f"{tmp_path}/metrics.jsonl cannot be read"):
        RunLog(tmp_path).rewind("a", 2, 1)
    for read in (read_metrics, published_protocol):
        with pytest.raises(RunError, match=f"{tmp_path}/metrics.jsonl cannot be read .*; remove its last line"):
            read(tmp_path)


def test_unfinished_runs_are_those_of_the_same_settings_that_nobody_trains(tmp_path):
    settings = {"method": "aand", "lr": 0.1, "seed": 0, "categories": ["a"], "started": "now"}
    settings |= {"recipe": "published", "deterministic": False, "command": "python train.py"}
    settings |= {"backbone": "resnet18", "image_size": 32, "dataset": "mvtec", "data_root": "/data"}

    def make(name: str, **changes: object) -> None:
        (tmp_path / name / "checkpoints/a").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps(settings | changes))

    make("x-1")
    make("x-2", started="before")
    make("x-3", lr=0.2)
    make("x-4", categories=["a", "b"])
    make("x-5")
    (tmp_path / "x-5/checkpoints/a/stage2.pt").touch()
    make("x-6")
    make("y-7")
    (tmp_path / "x-8").mkdir()
    with FileLock(tmp_path / "x-6/.lock"):
        assert unfinished_run("x-*", settings, (), tmp_path).name == "x-2"
    assert unfinished_run("x-*", settings, (), tmp_path).name == "x-6"
    assert unfinished_run("z-*", settings, (), tmp_path) is None
    make("x-9/seed1", seed=1)
    assert unfinished_run("x-9", settings, (1, 2), tmp_path).name == "x-9"  # seed 2 has not begun
    (tmp_path / "x-9/seed1/checkpoints/a/stage2.pt").touch()
    assert unfinished_run("x-9", settings, (1, 2), tmp_path).name == "x-9"
    assert unfinished_run("x-9", settings, (1,), tmp_path) is None
    assert unfinished_run("x-9", settings, (2,), tmp_path) is None


def test_the_log_forgets_what_is_trained_again(tmp_path):
    log = RunLog(tmp_path)
    with log.stage("a", 1, 2) as on_epoch:
        on_epoch(1, {"loss": 0.5})
        on_epoch(2, {"loss": 0.25})
    with log.stage("b", 2, 1) as on_epoch:
        on_epoch(1, {"loss": 0.125})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"category": "b", "st')
    log.rewind("c", 1, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines)  # but for the line that was not finished
    log.rewind("a", 1, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + lines[2]
    log.rewind("b", 1, 7)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0]  # Stage II comes after Stage I


def test_the_bar_counts_steps_and_says_the_epoch(tmp_path, capsys):
    with RunLog(tmp_path).stage("a", 2, epochs=3, first=2, steps=4, done=1) as log:
        assert (log.bar.n, log.bar.total) == (5, 12)
        for _ in range(3):
            log.tick()
        assert log.bar.n == 8
        log(2, {"loss": 0.5})
        assert log.bar.n == 8 and log.bar.postfix == "epoch 2/3  loss 0.5000"
        log(3, {"loss": 0.25})  # of a stage that takes no steps
        assert log.bar.n == 12
