"""The table of scored runs and what synthetic anomalies foretell: by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks import accuracy
from tests.comparison_cases import scored, write_run
from tests.test_benchmarks import call, tables


def log(folder, epochs):
    """metrics.jsonl of a category `tile` with (epoch, figures), after an epoch of Stage I that counts for nothing."""
    records = [{"category": "tile", "stage": 1, "epoch": 9, "image_auroc": 0.0, "synthetic_image_auroc": 0.0}]
    records += [{"category": "tile", "stage": 2, "epoch": epoch, **figures} for epoch, figures in epochs]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def epochs_of(*aurocs):
    return [(epoch, {"image_auroc": value}) for epoch, value in aurocs]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (epochs_of((8, 0.1), (9, 0.7), (10, 0.75)), 0.05),  # epoch 8 of 10 is not of the last fifth
        (epochs_of((17, 0.9), (18, 0.5), (19, 0.8), (20, 0.7)), 0.4),
        ([*epochs_of((17, 0.9), (18, 0.5)), (20, {"loss": 1.0})], 0.4),
        (epochs_of((10, 0.5), (20, 0.9)), None),
        ([(20, {"loss": 1.0})], None),
        ([], None),
    ],
)
def test_swing(epochs, expected):
    found = accuracy.swing(dict(epochs))
    assert found is None if expected is None else found == pytest.approx(expected)


def test_a_row_a_run(monkeypatch, capsys, tmp_path):
    figures = [{"tile": {"image_auroc": value, "pixel_auroc": 0.9, "aupro": 0.8}} for value in (0.5, 0.6)]
    settings = {"method": "aand", "recipe": "robust", "backbone": "resnet18"}
    ours = write_run(tmp_path / "ours", *(scored(seed, one, settings=settings) for seed, one in enumerate(figures)))
    log(ours / "seed0", epochs_of((9, 0.5), (10, 0.52)))
    log(ours / "seed1", epochs_of((9, 0.5), (10, 0.6)))
    base = write_run(tmp_path / "base", scored(settings={"method": "rd4ad", "recipe": "published", "backbone": "x"}))
    older = write_run(tmp_path / "older", scored(settings={"backbone": "x"}))
    [[heading, *rows]] = tables(call(accuracy, monkeypatch, capsys, ours, base, older))
    assert heading == ["category", "teacher", "recipe", "seeds", "I-AUROC", "P-AUROC", "PRO", "swing"]
    assert rows == [
        ["tile", "resnet18", "robust", "2", "55.00 ± 7.07", "90.00 ± 0.00", "80.00 ± 0.00", "6.00"],
        ["tile", "x", "rd4ad", "1", "50.00", "–", "–", "–"],
        ["tile", "x", "published", "1", "50.00", "–", "–", "–"],  # of a run that does not say
    ]


def both(*rated):
    """Epochs with (synthetic, test) image AUROC, PRO the other way round."""
    return [
        (epoch, {"synthetic_image_auroc": s, "image_auroc": t, "synthetic_aupro": s, "aupro": 1 - t})
        for epoch, (s, t) in enumerate(rated, start=1)
    ]


def test_rank_correlations(monkeypatch, capsys, tmp_path):
    """Over epochs: the first run's are in the same order, 1; the second's ranks are 1 3 2 and 1 2 3, 1 - 12 / 24 = 0.5;
    the third has too few. Over runs the last epochs (0.4, 0.6), (0.2, 0.9), (0.3, 0.8) are in reversed order."""
    curves = [[(0.1, 0.3), (0.2, 0.4), (0.4, 0.6)], [(0.1, 0.6), (0.3, 0.7), (0.2, 0.9)], [(0.3, 0.8)]]
    runs = []
    for name, curve in zip("abc", curves, strict=True):
        runs.append(write_run(tmp_path / name, scored(settings={"backbone": "x"})))
        log(runs[-1], both(*curve))
    _, table = tables(call(accuracy, monkeypatch, capsys, *runs))
    assert table == [
        ["category", "metric", "over epochs", "over runs"],
        ["tile", "I-AUROC", "+0.75", "-1.00"],
        ["tile", "PRO", "-0.75", "+1.00"],
    ]


def test_too_few_rated_epochs_and_runs_have_no_correlation(monkeypatch, capsys, tmp_path):
    run = write_run(tmp_path / "run", scored(settings={"backbone": "x"}))
    log(run, both((0.1, 0.3), (0.2, 0.4)))
    _, [_, *rows] = tables(call(accuracy, monkeypatch, capsys, run))
    assert rows == [["tile", "I-AUROC", "–", "–"], ["tile", "PRO", "–", "–"]]
