"""The tables of scored runs: by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks import accuracy
from tests.repository.test_benchmarks import call, tables
from tests.support.comparison_cases import scored, write_run
from utils.system.errors import RunError


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
    ours = write_run(tmp_path / "ours", *(
        scored(seed, one, settings=settings, seconds={"tile": {"training": 61.0 + seed}})
        for seed, one in enumerate(figures)
    ))
    log(ours / "seed0", epochs_of((9, 0.5), (10, 0.52)))
    log(ours / "seed1", epochs_of((9, 0.5), (10, 0.6)))
    base = write_run(tmp_path / "base", scored(settings={"method": "rd4ad", "recipe": "published", "backbone": "x"}))
    older = write_run(tmp_path / "older", scored(settings={"backbone": "x"}))
    [[heading, *rows]] = tables(call(accuracy, monkeypatch, capsys, ours, base, older))
    assert heading == ["category", "teacher", "recipe", "seeds", "I-AUROC", "P-AUROC", "PRO", "swing", "training, s"]
    assert rows == [
        ["tile", "ResNet-18", "robust", "2", "55.00 ± 7.07", "90.00 ± 0.00", "80.00 ± 0.00", "6.00", "62"],
        ["", "x", "rd4ad", "1", "**50.00**", "–", "–", "–", "–"],
        ["", "", "published", "1", "**50.00**", "–", "–", "–", "–"],  # of a run that does not say
    ]


def of(recipe, *figures, category="tile", **parts):
    """Seeds of one run with figures (I-AUROC, P-AUROC, PRO) each."""
    settings = {"method": "rd4ad" if recipe == "rd4ad" else "aand", "recipe": recipe, "backbone": "resnet18"}
    names = ("image_auroc", "pixel_auroc", "aupro")
    return [
        scored(seed, {category: dict(zip(names, one, strict=True))}, settings=settings | {"dataset": "mvtec"}, **parts)
        for seed, one in enumerate(figures)
    ]


def test_the_best_of_a_category_and_teacher_is_bold(monkeypatch, capsys, tmp_path):
    base = write_run(tmp_path / "runs" / "base", *of("rd4ad", (0.6, 0.9, 0.5), (0.8, 0.9, 0.6)))
    ours = write_run(tmp_path / "runs" / "ours", *of("published", (0.7, 0.9, 0.4), (0.7, 0.8, 0.5)))
    other = write_run(tmp_path / "runs" / "other", *of("published", (0.1, 0.2, 0.3), category="two_words"))
    [[heading, *rows]] = tables(call(accuracy, monkeypatch, capsys, base, ours, other, "--table", "summary"))
    assert heading == ["category", "teacher", "RD4AD, ours", "AAND, ours"]
    assert rows == [
        ["tile (MVTec AD)", "ResNet-18", "**70.00 / 90.00 / 55.00**", "**70.00** / 85.00 / 45.00"],
        ["two words (MVTec AD)", "ResNet-18", "–", "10.00 / 20.00 / 30.00"],
    ]


def test_rows_link_to_their_runs(monkeypatch, capsys, tmp_path):
    run = write_run(tmp_path / "runs" / "base", *of("rd4ad", (0.6, 0.9, 0.5)))
    for table in ("runs", "protocol"):
        [[_, row]] = tables(call(accuracy, monkeypatch, capsys, run, "--table", table, "--links", tmp_path / "docs"))
        assert row[2] == "[rd4ad](../runs/base)"


def test_summary_has_room_for_one_run_of_a_recipe(monkeypatch, capsys, tmp_path):
    runs = [write_run(tmp_path / name, *of("robust", (0.6, 0.9, 0.5))) for name in "ab"]
    with pytest.raises(RunError, match="tile, ResNet-18: a recipe has several runs"):
        call(accuracy, monkeypatch, capsys, *runs, "--table", "summary")


def test_best_epoch_on_the_test_set(monkeypatch, capsys, tmp_path):
    first, second = of("robust", (0.6, 0.9, 0.5), (0.7, 0.8, 0.6))
    for one, auroc in ((first, 0.8), (second, 0.7)):
        metrics = {"image_auroc": auroc, "pixel_auroc": 0.9, "aupro": 0.5}
        gain = {"image_auroc": auroc - one["categories"]["tile"]["image_auroc"]}
        one["published_protocol"] = {"tile": {"epoch": 1, "metrics": metrics, "gain": gain}}
    runs = [write_run(tmp_path / "a", first, second), write_run(tmp_path / "b", *of("rd4ad", (0.6, 0.9, 0.5)))]
    [[_, *rows]] = tables(call(accuracy, monkeypatch, capsys, *runs, "--table", "protocol"))
    assert rows == [
        ["tile", "ResNet-18", "robust", "65.00 / 85.00 / 55.00", "75.00 / 90.00 / 50.00", "10.00 ± 14.14"],
        ["", "", "rd4ad", "60.00 / 90.00 / 50.00", "– / – / –", "–"],
    ]


def test_a_column_a_kind_of_defect(monkeypatch, capsys, tmp_path):
    """Good images at 1 and 3: one dent is above both, one above the first; the scratch is above the first, or both."""
    lines = ["good,0,1", "good,0,3", "dent,1,2", "dent,1,4"]
    run = write_run(tmp_path / "run", *of("robust", (0.5, 0.9, 0.5), (0.6, 0.9, 0.7)))
    for seed, scratch in ((0, "2.5"), (1, "9")):
        text = "\n".join(["defect,label,score", *lines, f"scratch,1,{scratch}"])
        (run / f"seed{seed}" / "scores.csv").write_text(text + "\n")
    [[heading, *rows]] = tables(call(accuracy, monkeypatch, capsys, run, "--table", "kinds"))
    assert heading == ["teacher", "recipe", "dent", "scratch"]
    assert rows == [["ResNet-18", "robust", "75.00 ± 0.00", "75.00 ± 35.36"]]


def test_a_column_a_seed(monkeypatch, capsys, tmp_path):
    two = write_run(tmp_path / "two", *of("robust", (0.5, 0.9, 0.5), (0.6, 0.9, 0.7)))
    one = write_run(tmp_path / "one", *of("robust", (0.4, 0.8, 0.3)))
    [[heading, *rows]] = tables(call(accuracy, monkeypatch, capsys, two, one, "--table", "seeds"))
    assert heading == ["run", "seed 0", "seed 1", "mean ± standard deviation"]
    assert rows == [
        ["two", "50.00 / 90.00 / 50.00", "60.00 / 90.00 / 70.00", "55.00 ± 7.07 / 90.00 ± 0.00 / 60.00 ± 14.14"],
        ["one", "40.00 / 80.00 / 30.00", "–", "40.00 / 80.00 / 30.00"],
    ]


def both(*rated):
    """Epochs with (synthetic, test) image AUROC, PRO the other way round."""
    return [
        (epoch, {"synthetic_image_auroc": s, "image_auroc": t, "synthetic_aupro": s, "aupro": 1 - t})
        for epoch, (s, t) in enumerate(rated, start=1)
    ]


def test_rank_correlations(monkeypatch, capsys, tmp_path):
    """Over epochs: the first run's are in the same order, 1; the second's ranks are 1 3 2 and 1 2 3, 1 - 12 / 24 = 0.5;
    the third has too few. Over runs the last epochs (0.4, 0.6), (0.2, 0.9), (0.3, 0.8) are in reversed order.
    Each result is 0.5: 0.1, 0.4 and 0.3 less than those; PRO is not in it."""
    curves = [[(0.1, 0.3), (0.2, 0.4), (0.4, 0.6)], [(0.1, 0.6), (0.3, 0.7), (0.2, 0.9)], [(0.3, 0.8)]]
    runs = []
    for name, curve in zip("abc", curves, strict=True):
        runs.append(write_run(tmp_path / name, scored(settings={"backbone": "x"})))
        log(runs[-1], both(*curve))
    [table] = tables(call(accuracy, monkeypatch, capsys, *runs, "--table", "synthetic"))
    assert table == [
        ["category", "metric", "over epochs", "over runs", "selected less last epoch, test set"],
        ["tile", "I-AUROC", "+0.75", "-1.00", "-26.67 (-40.00 to -10.00)"],
        ["tile", "PRO", "-0.75", "+1.00", "–"],
    ]


def test_too_few_rated_epochs_and_runs_have_no_correlation(monkeypatch, capsys, tmp_path):
    run = write_run(tmp_path / "run", scored(settings={"backbone": "x"}))
    log(run, both((0.1, 0.3), (0.2, 0.4)))
    [[_, *rows]] = tables(call(accuracy, monkeypatch, capsys, run, "--table", "synthetic"))
    assert [row[:4] for row in rows] == [["tile", "I-AUROC", "–", "–"], ["tile", "PRO", "–", "–"]]
