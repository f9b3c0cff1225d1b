"""scores.csv of test.py: the score of every test image, with p-value and verdict where there are thresholds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datasets.base import Sample
from tests.support.commands import run_predict, run_test, scores_of
from tests.support.trees import good_image, make_folder, write_image
from utils.detection.thresholds import HELD_OUT, LargestPixels, Thresholds
from utils.results.record import ImageScore, image_scores, merge_scores, write_scores

COLUMNS = ["path", "category", "defect", "label", "score", "p_value", "anomalous"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    return rows


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory) -> Path:
    """The working folder of a scored run without thresholds, in run/."""
    cwd = tmp_path_factory.mktemp("scored")
    shutil.copytree(trained.aand, cwd / "run")
    result = run_test(cwd, "--data_root", trained.data, "--run", "run")
    assert result.status == 0, result.err
    return cwd


def test_every_test_image_has_a_line_with_its_score(trained, scored):
    rows = read(scored / "run/scores.csv")
    for category in ("bottle", "tile"):
        found = [row for row in rows if row["category"] == category]
        names = ["crack/000", "crack/001", "good/000", "good/001", "hole/000"]
        assert [row["path"] for row in found] == [f"{category}/test/{name}.png" for name in names]
        assert [row["defect"] for row in found] == [name.split("/")[0] for name in names]
        assert [row["label"] for row in found] == ["1", "1", "0", "0", "1"]
        expected = scores_of(trained.aand, category, [trained.data / row["path"] for row in found])
        np.testing.assert_allclose([float(row["score"]) for row in found], expected, rtol=1e-6)
        assert {(row["p_value"], row["anomalous"]) for row in found} == {("", "")}
        results = json.loads((scored / "run/results.json").read_text())["categories"][category]
        labels, scores = zip(*[(int(row["label"]), float(row["score"])) for row in found], strict=True)
        assert roc_auc_score(labels, scores) == pytest.approx(results["image_auroc"])
    assert len(rows) == 10


def test_with_thresholds_the_lines_say_what_predict_says(own, tmp_path):
    shutil.copytree(own.run, tmp_path / "run")
    result = run_test(tmp_path, "--data_root", own.data, "--run", "run")
    assert result.status == 0, result.err
    rows = read(tmp_path / "run/scores.csv")
    result = run_predict(tmp_path, "run", *(own.data / row["path"] for row in rows), "--output", "found.csv")
    assert result.status == 0, result.err
    with (tmp_path / "found.csv").open(newline="") as file:
        predicted = list(csv.DictReader(file))
    assert len(rows) == len(predicted) == 5
    for row, found in zip(rows, predicted, strict=True):
        assert float(row["score"]) == pytest.approx(float(found["score"]), rel=1e-5)
        assert (row["p_value"], row["anomalous"]) == (found["p_value"], found["anomalous"])


def test_each_seed_has_its_own(seeded, trained, tmp_path):
    run = shutil.copytree(seeded.run, tmp_path / "run")
    tables = [read(run / f"seed{seed}/scores.csv") for seed in (0, 1)]
    assert [row["path"] for row in tables[0]] == [row["path"] for row in tables[1]]
    assert [row["score"] for row in tables[0]] != [row["score"] for row in tables[1]]
    assert not (run / "scores.csv").exists()


def test_p_values_and_verdicts_by_hand(tmp_path):
    """Of four good images two score as high as 2 or higher: p = 3 / 5; far 0.2 makes 4 the threshold."""
    pixels = LargestPixels()
    pixels.add(np.zeros((4, 2, 2), np.float32))
    thresholds = Thresholds.from_scores([1.0, 1.5, 2.0, 4.0], pixels, 0.2, HELD_OUT)
    samples = [Sample(tmp_path / "a/test/good/0.png", 0, "good"), Sample(tmp_path / "a/test/cut/1.png", 1, "cut")]
    found = image_scores("a", samples, tmp_path, np.array([2.0, 4.5]), thresholds)
    assert found == [
        ImageScore("a/test/good/0.png", "a", "good", 0, 2.0, 0.6, False),
        ImageScore("a/test/cut/1.png", "a", "cut", 1, 4.5, 0.2, True),
    ]


def test_a_name_cannot_make_lines(tmp_path):
    rng, name = np.random.default_rng(0), "x\n\x1b[2Jforged,0,0"
    data = make_folder(tmp_path / "data")
    path = write_image(data / f"widget/test/good/{name}.png", good_image(rng, 32))
    rows = image_scores("widget", [Sample(path, 0, "good")], data, np.array([0.5]), None)
    write_scores(tmp_path / "scores.csv", rows)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert read(tmp_path / "scores.csv")[0]["path"] == r"widget/test/good/x\n\x1b[2Jforged,0,0.png"


def test_files_are_joined_with_one_head(tmp_path):
    rows = [ImageScore(f"{name}/0.png", name, "good", 0, 0.25, None, None) for name in "ab"]
    for row in rows:
        write_scores(tmp_path / row.category / "scores.csv", [row])
    paths = [tmp_path / name / "scores.csv" for name in ("a", "gone", "b")]
    merge_scores(paths, tmp_path / "both.csv")
    write_scores(tmp_path / "expected.csv", rows)
    assert (tmp_path / "both.csv").read_text() == (tmp_path / "expected.csv").read_text()
    merge_scores([tmp_path / "gone/scores.csv"], tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()
