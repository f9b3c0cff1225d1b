"""The flags of speed as a user gives them: what stays the same, what is written where, and what starts quickly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from tests.support.commands import ROOT, TINY, read_state, run_report, run_test, run_train, same_state
from utils.runs.folder import Run
from utils.runs.settings import read_config
from utils.system.device import cpu_has_bf16

WITHOUT_TORCH = """
import runpy, sys
sys.argv = [{program!r}, *{arguments!r}]
try:
    runpy.run_path({program!r}, run_name="__main__")
except SystemExit as stop:
    assert stop.code == {status}, stop.code
assert not {{"torch", "torchvision", "timm", "scipy"}} & set(sys.modules)
"""


@pytest.mark.parametrize("program", ["train.py", "test.py", "scripts/report.py"])
@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--no_such_flag"], 2)])
def test_help_and_mistyped_flags_do_not_wait_for_torch(program, arguments, status):
    code = WITHOUT_TORCH.format(program=str(ROOT / program), arguments=arguments, status=status)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)


def train(trained, output, *options):
    base = ("--data_root", trained.data, *TINY, "--aux_path", "builtin", "--categories", "bottle", "--output", output)
    return run_train(trained.cwd, *base, *options)


def test_disk_cache_is_filled_once_and_serves_training_and_test(trained, tmp_path):
    cache = ("--cache", "disk", "--cache_dir", tmp_path / "cache")
    assert train(trained, tmp_path / "first", *cache).status == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    kinds = sorted(path.name.split("-")[0] for path in files)
    assert kinds == ["checks.json", "images", "masks", "textures", "training"]
    assert train(trained, tmp_path / "second", *cache).status == 0
    outputs = [run_test(tmp_path, "--data_root", trained.data, "--run", "second", *flags).out for flags in ((), cache)]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files
    assert outputs[0] == outputs[1]  # from memory as from disk
    for stage in (1, 2):
        first, second = (read_state(Run(tmp_path / run).category("bottle").stage(stage)) for run in ("first", "second"))
        assert same_state(first, second)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_the_report_is_the_same_from_every_cache(trained, tmp_path, cache):
    shutil.copytree(trained.aand, tmp_path / "run")
    flags = ("--categories", "bottle", "--cache_dir", tmp_path / "cache")
    pages = []
    for choice in ("ram", cache):
        result = run_report(tmp_path, "run", *flags, "--cache", choice)
        assert result.status == 0, result.err
        pages.append((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert kept == ({"checks.json", "images", "masks"} if cache == "disk" else {"checks.json"})


def test_plain_mode_says_what_it_is(trained, tmp_path):
    result = train(trained, tmp_path / "run", "--plain", "--precision", "auto")
    assert result.status == 0, result.err
    config = read_config(tmp_path / "run")
    assert (config["plain"], config["precision"]) == (True, "fp32")
    assert "features are computed anew in each epoch" in (tmp_path / "run/log.txt").read_text()
    result = run_test(tmp_path, "--data_root", trained.data, "--run", "run", "--batch_size", 1)
    assert result.status == 0, result.err
    # the same arithmetic in another order: the losses of the first epoch hardly differ
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    usual = [json.loads(line) for line in (trained.aand / "metrics.jsonl").read_text().splitlines()]
    first = [record["loss"] for record in records if record["epoch"] == 1]
    expected = [r["loss"] for r in usual if r["epoch"] == 1 and r["category"] == "bottle"]
    assert first == pytest.approx(expected, rel=0.02)


def test_auto_precision_is_kept_as_what_it_meant(trained, tmp_path):
    result = train(trained, tmp_path / "run", "--precision", "auto", "--epochs_stage1", 1, "--epochs_stage2", 1)
    assert result.status == 0, result.err
    assert read_config(tmp_path / "run")["precision"] == ("bf16" if cpu_has_bf16() else "fp32")


def test_a_run_goes_on_in_its_precision_only(trained):
    result = train(trained, trained.aand, "--precision", "bf16")
    assert result.status == 2
    assert "precision: fp32 -> bf16" in result.err


def test_fp16_needs_cuda(trained, tmp_path):
    result = train(trained, tmp_path / "run", "--precision", "fp16")
    assert result.status == 2
    assert result.errors == ["error: --precision fp16 needs a CUDA device, not cpu; use auto, bf16 or fp32"]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_has_the_same_losses(trained, tmp_path):
    try:
        result = train(trained, tmp_path / "run", "--compile", "--epochs_stage1", 1, "--epochs_stage2", 1)
    finally:
        torch.compiler.reset()
    assert result.status == 0, result.err
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    usual = [json.loads(line) for line in (trained.aand / "metrics.jsonl").read_text().splitlines()]
    expected = [r["loss"] for r in usual if r["epoch"] == 1 and r["category"] == "bottle"]
    assert [record["loss"] for record in records] == pytest.approx(expected, rel=0.02)
