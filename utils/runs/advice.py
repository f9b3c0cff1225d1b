"""Advice that programs print when they are done: the next commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.names import printable
from utils.runs.folder import open_runs, trained_categories
from utils.system.errors import command


def what_next(run: Path, data_root: Path, categories: Sequence[str], tested: Sequence[str], test_errors: bool) -> str:
    """Advice for categories that were trained: test.py for those `tested`, which have test images, predict.py for the
    others. test_errors: some of the test files cannot be used."""
    trained = trained_categories(run)
    advice = []
    if tested:
        which = [] if set(tested) == set(trained) else ["--categories", *tested]
        without = ["--skip_bad"] if test_errors else []
        advice.append(f"score it with: {command('test.py', '--data_root', data_root, '--run', run, *which, *without)}")
    others = [category for category in categories if category not in tested]
    if others:
        several = len(trained) > 1
        which = ["--category", others[0]] if several else []
        predicting = command("scripts/predict.py", run, "IMAGES", *which)
        advice.append(f"no test images of {printable(', '.join(others))}: score others with: {predicting}")
        if not open_runs(run)[0].category(others[0]).thresholds.is_file():
            which = ["--categories", others[0]] if several else []
            setting = command("scripts/calibrate.py", run, "--images", "GOOD_IMAGES", *which)
            advice.append(f"set a threshold first with: {setting}")
    return "; ".join(advice)
