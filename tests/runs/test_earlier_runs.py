"""Runs of earlier versions, which had --select and --holdout: scored, reported and compared as what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import run_compare, run_report, run_test, run_train
from tests.support.comparison_cases import scored, write_run
from utils.results.comparison import compare, read_runs
from utils.runs.folder import Run
from utils.runs.history import published_protocol
from utils.system.errors import CheckpointError

RECORDED = sorted((Path(__file__).parents[2] / "results/epoch_selection").glob("*/seed*"))
RATED = "epoch chosen on synthetic anomalies"


def make_earlier(trained, folder: Path, select: str) -> Path:
    """A finished run with these flags and, if epochs were rated, with what was logged of it."""
    run = shutil.copytree(trained.aand, folder / select)
    flags = {"select": select, "holdout": 0.25}
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | flags))
    for path in run.glob("checkpoints/*/stage?.pt"):
        content = torch.load(path, weights_only=True)
        content["made_with"] |= flags
        torch.save(content, path)
    if select == "synthetic":
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for record in (record for record in records if record["stage"] == 2):
            first = record["epoch"] == 1
            record |= {"synthetic_image_auroc": 0.9 if first else 0.7, "synthetic_aupro": 0.3, "image_auroc": 0.5}
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def write_log(folder: Path, *records: dict) -> Path:
    lines = [json.dumps({"category": "bottle", "stage": 2, **record}) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_the_flags_are_gone(tmp_path, trained):
    result = run_train(tmp_path, "--data_root", trained.data, "--select", "synthetic", "--holdout", 0.5)
    assert result.status == 2
    assert result.errors == ["train.py: error: unrecognized arguments: --select synthetic --holdout 0.5"]
    assert not {"select", "holdout"} & set(json.loads((trained.aand / "config.json").read_text()))


@pytest.mark.parametrize(("select", "said", "kept"), [("last", "last epoch", []), ("synthetic", RATED, [0.25])])
def test_results_and_report_say_which_epoch_it_is(trained, tmp_path, select, said, kept):
    run = make_earlier(trained, tmp_path, select)
    result = run_test(tmp_path, "--data_root", trained.data, "--run", run)
    assert result.status == 0 and f"({said})" in result.out, result.err
    results = json.loads((run / "results.json").read_text())
    assert results["protocol"]["epoch"] == select
    assert [value for name, value in results["settings"].items() if name == "holdout"] == kept
    result = run_report(tmp_path, run, "--data_root", trained.data, "--output", "report.html")
    assert result.status == 0, result.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"<dt>Result</dt><dd>{said}</dd>" in page
    now = shutil.copytree(trained.aand, tmp_path / "now")
    assert run_test(tmp_path, "--data_root", trained.data, "--run", now).status == 0
    result = run_compare(tmp_path, run, now)
    assert result.status == 0, result.err
    assert ("Setting" in result.out, "Not scored in the same way" in result.out) == (bool(kept), bool(kept))


def test_files_of_both_kinds_are_not_mixed(trained, tmp_path):
    last, rated = (make_earlier(trained, tmp_path, select) for select in ("last", "synthetic"))
    shutil.copy(rated / "checkpoints/tile/stage1.pt", last / "checkpoints/tile/stage1.pt")
    with pytest.raises(CheckpointError, match="was trained with select 'synthetic', the run has 'last'"):
        Run(last).category("tile").load_model()


def test_results_are_compared_as_those_of_the_last_epoch(tmp_path):
    flags = {"now": {}, "last": {"select": "last", "holdout": 0.1}, "rated": {"select": "synthetic", "holdout": 0.1}}
    now, last, rated = (
        write_run(tmp_path / name, scored(0, settings={"recipe": "published", **given}))
        for name, given in flags.items()
    )
    assert list(compare(read_runs([now, last]), ["image_auroc"]).notes) == []
    assert list(compare(read_runs([now, rated]), ["image_auroc"]).notes) == [
        "Setting select: last (now); synthetic (rated)."
    ]


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_published_protocol_is_as_it_was_recorded(folder):
    assert published_protocol(folder) == json.loads((folder / "results.json").read_text())["published_protocol"]


def test_the_published_protocols_gain_is_above_the_result(tmp_path):
    rated = [
        {"epoch": epoch, "image_auroc": auroc, "synthetic_image_auroc": image, "synthetic_aupro": pixel}
        for epoch, auroc, image, pixel in [(1, 0.9, 0.5, 0.5), (2, 0.6, 0.9, 0.5), (3, 0.8, 0.6, 0.8), (4, 0.7, 1, 0.1)]
    ]  # ratings 0.5, 0.7, 0.7, 0.55: of equal ones the first
    chosen = published_protocol(write_log(tmp_path, *rated))["bottle"]
    assert chosen["epoch"] == 1
    assert chosen["gain"]["image_auroc"] == pytest.approx(0.3)  # above epoch 2


def test_without_test_metrics_of_the_result_there_is_no_gain(tmp_path):
    folder = write_log(tmp_path, {"epoch": 1, "synthetic_image_auroc": 0.4}, {"epoch": 2, "image_auroc": 0.7})
    assert published_protocol(folder) == {}
