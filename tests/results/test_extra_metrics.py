"""Metrics that MVTec LOCO AD and MVTec AD 2 define, from the files to results.json, tables and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from datasets.base import load_mask
from datasets.view import enlarge
from tests.support.commands import TINY, maps_of, run_compare, run_report, run_test, run_train
from tests.support.metric_references import slow_aupro, slow_spro
from tests.support.trees import make_mvtec_ad2, make_mvtec_loco, write_image
from utils.metrics import METRICS
from utils.results import extra_metrics

SIZE, NATIVE = 32, 48  # of the run, of the images
OF_IMAGES = ["image_auroc_logical", "image_auroc_structural", "image_auroc_mean"]
SATURATED = ["spro_logical", "spro_structural", "spro_mean"]


def train_on(data: Path) -> Path:
    """A folder with the data set in data/, and a run in run/ scored at both resolutions."""
    result = run_train(data.parent, "--data_root", data, *TINY, "--method", "rd4ad", "--output", "run")
    assert result.status == 0, result.err
    score(data.parent)
    return data.parent


def score(folder: Path, *options: object) -> str:
    result = run_test(folder, "--data_root", "data", "--run", "run", "--resolution", "native", *options)
    assert result.status == 0, result.err
    (folder / "printed.txt").write_text(result.out, encoding="utf-8")
    return result.err


def read_results(folder: Path) -> dict:
    return json.loads((folder / "run/results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loco(tmp_path_factory) -> Path:
    """Of the second category it is not known where regions saturate."""
    data = tmp_path_factory.mktemp("loco") / "data"
    make_mvtec_loco(data, ["pushpins", "screw_bag"], train=4, size=NATIVE)
    (data / "screw_bag/defects_config.json").unlink()
    return train_on(data)


@pytest.fixture(scope="module")
def ad2(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("ad2") / "data"
    return train_on(make_mvtec_ad2(data, ["can", "rice"], train=4, size=NATIVE))


@pytest.fixture
def copied(loco, tmp_path) -> Path:
    return Path(shutil.copytree(loco, tmp_path / "loco"))


def loco_reference(folder: Path, kind: str, native: bool) -> dict[str, float]:
    """I-AUROC and sPRO of one kind, from the files."""
    category = folder / "data/pushpins"
    images = [*sorted((category / "test/good").iterdir()), *sorted((category / f"test/{kind}_anomalies").iterdir())]
    maps = maps_of(folder / "run", "pushpins", images)
    labels, scores = [path.parent.name != "good" for path in images], [image.max() for image in maps]
    regions = [[] for _ in images]
    for path, some in zip(images, regions, strict=True):
        for mask in sorted((category / "ground_truth" / path.parent.name / path.stem).glob("*.png")):
            area = np.count_nonzero(np.asarray(Image.open(mask)))
            at_size = load_mask(mask, None if native else SIZE)
            pixels = {"000.png": min(40, area), "001.png": 0.5 * area}[mask.name]  # as LOCO_DEFECTS says
            if at_size.any():
                some.append((at_size, pixels * np.count_nonzero(at_size) / area))
    resized = [enlarge(image, (NATIVE, NATIVE)) for image in maps] if native else maps
    return {
        f"image_auroc_{kind}": roc_auc_score(labels, scores), f"spro_{kind}": slow_spro(regions, resized, limit=0.05),
    }


@pytest.mark.parametrize("native", [False, True])
def test_loco_equals_slow_references(loco, native):
    results = read_results(loco)["native"] if native else read_results(loco)
    found = results["categories"]["pushpins"]
    logical, structural = (loco_reference(loco, kind, native) for kind in ("logical", "structural"))
    assert {name: found[name] for name in logical | structural} == pytest.approx(logical | structural, abs=1e-3)
    for metric in ("image_auroc", "spro"):
        assert found[f"{metric}_mean"] == (found[f"{metric}_logical"] + found[f"{metric}_structural"]) / 2
    assert found["spro_mean"] > 0


def test_loco_is_shown_in_tables_and_files(loco):
    results, printed = read_results(loco), (loco / "printed.txt").read_text(encoding="utf-8")
    assert list(results["categories"]["pushpins"]) == [*METRICS, *OF_IMAGES, *SATURATED]
    assert list(results["categories"]["screw_bag"]) == [*METRICS, *OF_IMAGES]
    assert results["mean"]["spro_mean"] == results["categories"]["pushpins"]["spro_mean"]
    assert "saturated PRO" in results["protocol"]["spro_mean"]
    head = (loco / "run/results.csv").read_text().splitlines()[0]
    assert head.endswith(",spro_logical [0..1],spro_structural [0..1],spro_mean [0..1]")
    assert printed.count("sPRO logical  sPRO structural  sPRO mean\n") == 2
    assert f"{100 * results['mean']['image_auroc_mean']:.2f}" in printed
    assert printed.count("Mean sPRO mean is over 1 of 2 categories.") == 2


def test_loco_in_comparison_and_report(loco, ad2, copied):
    shutil.copytree(copied / "run", copied / "other")
    result = run_compare(copied, "run", "other", "--metrics", "all", "--output", "all.json")
    assert result.status == 0, result.err
    entries = json.loads((copied / "all.json").read_text(encoding="utf-8"))["categories"]["pushpins"]
    assert list(entries) == [*METRICS, *OF_IMAGES, *SATURATED]
    assert run_compare(copied, "run", "other", "--metrics", "spro_mean").out.count("sPRO mean") >= 2
    for folder, shown in ((copied, True), (ad2, False)):
        result = run_report(folder, "run", "--data_root", "data", "--output", folder / "report.html")
        assert result.status == 0, result.err
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert [name in page for name in (">sPRO mean<", ">SegF1<")] == [shown, not shown]


def test_a_damaged_list_of_defects_is_an_error(copied):
    path = copied / "data/pushpins/defects_config.json"
    path.write_text("[{")
    result = run_test(copied, "--data_root", "data", "--run", "run")
    assert result.status == 2
    assert "saturation thresholds cannot be read: unpack the file again: data/pushpins/defects_config" in result.err
    score(copied, "--skip_bad")
    results = read_results(copied)
    assert list(results["categories"]["pushpins"]) == [*METRICS, *OF_IMAGES]
    assert "spro_mean" not in results["protocol"]
    assert results["skipped"].keys() == {"pushpins/defects_config.json"}


def test_a_mask_that_is_not_listed_is_told_before_anything_is_scored(copied):
    path = copied / "data/pushpins/ground_truth/logical_anomalies/000/000.png"
    write_image(path, np.asarray(Image.open(path)) // 5)
    result = run_test(copied, "--data_root", "data", "--run", "run")
    assert result.status == 2 and "scoring:" not in result.err
    [line] = result.errors
    assert "000/000.png has the grey levels 51; a mask has one of those that defects_config.json lists" in line


@pytest.mark.parametrize("deviations", [extra_metrics.DEVIATIONS, 0.5])
def test_ad2_equals_slow_references(ad2, tmp_path, monkeypatch, deviations):
    monkeypatch.setattr(extra_metrics, "DEVIATIONS", deviations)
    folder = Path(shutil.copytree(ad2, tmp_path / "ad2"))
    shutil.rmtree(folder / "data/rice/validation")
    score(folder)
    category, results = folder / "data/can", read_results(folder)
    images = sorted((category / "test_public").glob("*/*.png"))
    maps = maps_of(folder / "run", "can", images)
    [validation] = maps_of(folder / "run", "can", sorted((category / "validation/good").iterdir()))
    threshold = np.mean(validation, dtype=float) + deviations * np.std(validation, dtype=float)
    for size, part in ((SIZE, results), (NATIVE, results["native"])):
        masks = [
            load_mask(category / f"test_public/ground_truth/bad/{path.stem}_mask.png", size)
            if path.parent.name == "bad" else np.zeros((size, size), np.uint8)
            for path in images
        ]
        resized = [enlarge(image, (size, size)) for image in maps]
        flagged, truth = (np.ravel(part) for part in (np.stack(resized) > threshold, np.stack(masks)))
        expected = 2 * np.sum(flagged & (truth > 0)) / (np.sum(flagged) + np.sum(truth))
        assert part["categories"]["can"]["segf1"] == pytest.approx(expected, abs=1e-3)
        assert expected > 0.02
        assert part["categories"]["can"]["aupro_005"] == pytest.approx(slow_aupro(masks, resized, 0.05), abs=1e-3)
        assert list(part["categories"]["rice"]) == [*METRICS, "aupro_005"]


def test_a_validation_image_that_cannot_be_read_is_named(ad2, tmp_path):
    folder = Path(shutil.copytree(ad2, tmp_path / "ad2"))
    [path] = (folder / "data/rice/validation/good").iterdir()
    path.write_bytes(path.read_bytes()[:200])
    result = run_test(folder, "--data_root", "data", "--run", "run")
    assert result.status == 2 and "scoring:" not in result.err
    assert "rice/validation/good/000_regular.png" in result.err
