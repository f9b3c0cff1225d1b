"""What test.py measures and writes: results.json, native resolution against a slow reference, maps for MVTec."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from datasets.base import Sample
from datasets.view import enlarge
from tests.support.commands import maps_of, run_test
from tests.support.trees import make_mvtec, write_image
from utils.detection.test_set import fingerprint
from utils.metrics import METRICS, evaluate
from utils.runs.history import published_protocol, read_metrics
from utils.system.environment import code_version, environment

# Height and width of the test images, and of the masks where they differ from their image; the run's size is 32 x 32.
IMAGE_SIZES = {
    "crack/000": (48, 40), "crack/001": (31, 57), "good/000": (20, 70), "good/001": (32, 32), "hole/000": (50, 80),
}


@pytest.fixture(scope="module")
def mixed(trained, tmp_path_factory) -> Path:
    """The data of `trained` with test images and masks of different sizes in bottle."""
    rng = np.random.default_rng(0)
    root = shutil.copytree(trained.data, tmp_path_factory.mktemp("mixed") / "data")
    for name, (height, width) in IMAGE_SIZES.items():
        write_image(root / f"bottle/test/{name}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
        if not name.startswith("good"):
            mask = np.zeros(IMAGE_SIZES[name], np.uint8)
            mask[3:15, 5:20] = mask[-9:, -5:] = 255  # two regions
            write_image(root / f"bottle/ground_truth/{name}_mask.png", mask)
    return root


@pytest.fixture(scope="module")
def scored(trained, mixed, tmp_path_factory) -> Path:
    """A folder with a run in run/, its test sets of mixed sizes scored with all options, and MVTec's maps in maps/."""
    folder = tmp_path_factory.mktemp("scored")
    shutil.copytree(trained.rd4ad, folder / "run")
    options = ("--run", "run", "--resolution", "native", "--mvtec_maps", "maps")
    result = run_test(folder, "--data_root", mixed, *options)
    assert result.status == 0, result.err
    (folder / "printed.txt").write_text(result.out, encoding="utf-8")
    return folder


def read_results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def resize_slowly(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation between the centres of pixels, the edge repeated; one pixel at a time."""
    (height, width), (rows, columns) = size, values.shape
    resized = np.empty(size)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = values[top, left] * (left + 1 - x) + values[top, right] * (x - left)
            lower = values[bottom, left] * (left + 1 - x) + values[bottom, right] * (x - left)
            resized[i, j] = upper * (top + 1 - y) + lower * (y - top)
    return resized


def bottle_maps(run: Path, data: Path) -> dict[str, np.ndarray]:
    """The anomaly map (32, 32) of each test image of bottle, in the order of names."""
    maps = maps_of(run, "bottle", [data / f"bottle/test/{name}.png" for name in IMAGE_SIZES])
    return dict(zip(IMAGE_SIZES, maps, strict=True))


# results.json


def test_results_say_what_they_are_of(trained, scored, mixed):
    results, config = read_results(scored / "run"), json.loads((trained.rd4ad / "config.json").read_text())
    assert {category: list(row) for category, row in results["categories"].items()} == {
        "bottle": list(METRICS), "tile": list(METRICS)
    }
    assert results["seed"] == 0
    assert results["protocol"]["epoch"] == "last"
    assert results["published_protocol"] == {}
    assert results["training"] == {name: config[name] for name in ("command", "started", "code", "environment")}
    assert re.match(r"python \S*train.py --data_root .* --method rd4ad", results["training"]["command"])
    for part in ("training", "testing"):  # files may be edited while the tests run
        assert results[part]["code"].keys() == code_version().keys()
        assert results[part]["code"].get("commit") == code_version().get("commit")
    assert results["training"]["environment"] == results["testing"]["environment"] == environment()
    assert results["testing"]["device"] == "cpu"
    flags = f"--data_root {mixed} --run run --resolution native --mvtec_maps maps"
    assert re.fullmatch(rf"python \S*test.py --device cpu --workers 1 {flags}", results["testing"]["command"])
    for seconds in results["seconds"].values():
        assert seconds.keys() == {"training", "testing"}
        assert all(value > 0 for value in seconds.values())


def test_results_hold_the_settings_without_local_paths(trained, scored):
    results, config = read_results(scored / "run"), json.loads((trained.rd4ad / "config.json").read_text())
    apart = {"data_root", "aux_path", "command", "started", "code", "environment"}
    assert results["settings"] == {name: value for name, value in config.items() if name not in apart}
    assert {"method", "backbone", "image_size", "seed", "lr", "categories", "dataset"} <= results["settings"].keys()
    assert "/" not in json.dumps([results["settings"], results["test_files"], results["protocol"]])


def test_older_and_converted_runs_can_be_scored(trained, tmp_path):
    """They know neither the code nor the environment of their training, nor a seed."""
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["code"] = {"commit": "0" * 40, "changed": True}
    for name in ("environment", "seed"):
        del config[name]
    (run / "config.json").write_text(json.dumps(config))
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "run", "--categories", "tile").status == 0
    results = read_results(run)
    assert results["training"] == {name: config[name] for name in ("command", "started", "code")}
    assert results["seed"] is None


def test_test_files_are_those_scored(scored, mixed):
    names = [f"bottle/test/{name}.png" for name in ("crack/000", "crack/001", "good/000", "good/001", "hole/000")]
    assert read_results(scored / "run")["test_files"]["bottle"] == {
        "count": 5, "sha256": hashlib.sha256("\n".join(names).encode()).hexdigest()
    }


def test_fingerprint():
    """The SHA-256 of "a/0.png" and "b/1.png" with a line break between them, as sha256sum prints it."""
    samples = [Sample(Path("/data/set") / name, 0, "good") for name in ("b/1.png", "a/0.png")]
    expected = {"count": 2, "sha256": hashlib.sha256(b"a/0.png\nb/1.png").hexdigest()}
    assert fingerprint(samples, Path("/data/set")) == fingerprint(samples[::-1], Path("/data/set")) == expected
    assert fingerprint(samples[:1], Path("/data/set"))["sha256"] != expected["sha256"]
    assert fingerprint(samples, Path("/data"))["sha256"] != expected["sha256"]


def test_published_protocol_is_beside_the_result(trained, seeded):
    for folder in (seeded.run / "seed0", seeded.run / "seed1"):
        results, found = read_results(folder), published_protocol(folder)
        assert results["published_protocol"] == found
        assert list(found) == ["bottle", "tile"]
        logged = {record["category"]: record for record in read_metrics(folder) if record["stage"] == 2}  # the last
        for category, chosen in found.items():
            last = results["categories"][category]
            assert chosen["gain"]["image_auroc"] >= 0
            for metric, gain in chosen["gain"].items():
                assert chosen["metrics"][metric] - gain == pytest.approx(logged[category][metric], abs=1e-9)
                # The model for inference rounds otherwise: on some processors dozens of pixels change their ranks.
                assert logged[category][metric] == pytest.approx(last[metric], abs=1e-3)


# Native resolution


def test_native_resolution_equals_a_slow_reference(scored, mixed):
    maps = bottle_maps(scored / "run", mixed)
    masks = [
        np.asarray(Image.open(mixed / f"bottle/ground_truth/{name}_mask.png")) > 0
        if not name.startswith("good") else np.zeros(size, bool)
        for name, size in IMAGE_SIZES.items()
    ]
    resized = [resize_slowly(values, mask.shape) for values, mask in zip(maps.values(), masks, strict=True)]
    labels = [not name.startswith("good") for name in maps]
    found = read_results(scored / "run")["native"]["categories"]["bottle"]
    pixels, scores = (np.concatenate([image.ravel() for image in images]) for images in (masks, resized))
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(pixels, scores), abs=1e-5)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(pixels, scores), abs=1e-5)
    expected = evaluate(np.array(labels), np.array([values.max() for values in maps.values()]), masks, resized)
    assert found == pytest.approx(expected, abs=1e-4)
    assert list(found) == list(METRICS)
    usual = read_results(scored / "run")["categories"]["bottle"]
    assert {name: found[name] for name in METRICS if name.startswith("image")} == {
        name: usual[name] for name in METRICS if name.startswith("image")
    }
    assert all(abs(found[name] - usual[name]) > 1e-3 for name in ("pixel_auroc", "aupro"))


def test_native_resolution_of_masks_at_image_size_changes_nothing(scored):
    results = read_results(scored / "run")
    assert results["native"]["categories"]["tile"] == results["categories"]["tile"]
    assert results["native"]["protocol"] != results["protocol"]["pixels"]
    assert results["native"]["mean"]["aupro"] == pytest.approx(
        sum(results["native"]["categories"][category]["aupro"] for category in ("bottle", "tile")) / 2
    )
    usual, native = ((scored / "run" / name).read_text().splitlines() for name in ("results.csv", "results_native.csv"))
    assert (usual[0], usual[2]) == (native[0], native[2])
    assert usual[1] != native[1]
    assert native[1].startswith("bottle,")
    printed = (scored / "printed.txt").read_text(encoding="utf-8")
    head, _, below = printed.partition("At native resolution: ")
    for table, part in ((head, results), (below, results["native"])):
        assert f"{100 * part['categories']['bottle']['pixel_auroc']:.2f}" in table


def test_without_native_there_are_no_such_results(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    result = run_test(tmp_path, "--data_root", trained.data, "--run", "run", "--categories", "tile")
    assert result.status == 0, result.err
    assert "native" not in read_results(run)
    assert "native" not in result.out
    assert not (run / "results_native.csv").exists()


def test_native_resolution_without_masks_gives_image_metrics(trained, tmp_path):
    data = shutil.copytree(trained.data, tmp_path / "data")
    shutil.rmtree(data / "bottle/ground_truth")
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    config = json.loads((run / "config.json").read_text()) | {"dataset": "folder"}  # where masks may be missing
    (run / "config.json").write_text(json.dumps(config))
    for stage in run.rglob("stage*.pt"):  # as earlier ones, which do not say with what layout they were trained
        content = torch.load(stage)
        del content["made_with"]
        torch.save(content, stage)
    result = run_test(tmp_path, "--data_root", data, "--run", "run", "--resolution", "native")
    assert result.status == 0, result.err
    results = read_results(run)
    for part in (results, results["native"]):
        assert set(part["categories"]["bottle"]) == {"image_auroc", "image_ap", "image_f1_max"}
        assert set(part["categories"]["tile"]) == set(METRICS)
    assert result.out.count("Mean PRO is over 1 of 2 categories.") == 2


@pytest.mark.parametrize("size", [(5, 7), (3, 2), (4, 4), (1, 9)])
def test_enlarge_is_bilinear(size):
    values = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    resized = enlarge(values, size)
    assert (resized.dtype, resized.shape) == (np.float32, size)
    np.testing.assert_allclose(resized, resize_slowly(values, size), atol=1e-6)


# Maps for MVTec's evaluation


def test_mvtec_maps_have_the_size_of_their_images(scored, mixed):
    maps = bottle_maps(scored / "run", mixed)
    for name, size in IMAGE_SIZES.items():
        saved = np.asarray(tifffile.imread(scored / f"maps/bottle/test/{name}.tiff"))
        assert (saved.dtype, saved.shape) == (np.float32, size)
        np.testing.assert_allclose(saved, resize_slowly(maps[name], size), rtol=1e-5)
        assert np.ptp(saved) > 0


def test_mvtec_maps_are_found_by_the_names_of_the_images(scored, mixed):
    """MVTec's scripts look for <maps>/<object>/test/<defect>/<image> with the suffix .tiff, for every test image."""
    for category in ("bottle", "tile"):
        images = {path.relative_to(mixed).with_suffix(".tiff") for path in mixed.glob(f"{category}/test/*/*.png")}
        assert {path.relative_to(scored / "maps") for path in (scored / "maps" / category).rglob("*.*")} == images
    assert {path.name for path in (scored / "maps").iterdir()} == {"bottle", "tile"}
    assert not list((scored / "run").glob("maps*"))


def test_mvtec_maps_of_a_turned_image(trained, tmp_path):
    data = make_mvtec(tmp_path / "data", ["bottle"], train=1, suffix=".jpg")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8))  # 40 wide as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(data / "bottle/test/good/000.jpg", exif=exif)
    shutil.copytree(trained.rd4ad, tmp_path / "run")
    result = run_test(tmp_path, "--data_root", data, "--run", "run", "--resolution", "native", "--mvtec_maps", "maps")
    assert result.status == 0, result.err
    assert tifffile.imread(tmp_path / "maps/bottle/test/good/000.tiff").shape == (40, 24)
    assert tifffile.imread(tmp_path / "maps/bottle/test/good/001.tiff").shape == (32, 32)


def test_maps_of_several_seeds_are_apart(trained, seeded, tmp_path):
    run = shutil.copytree(seeded.run, tmp_path / "run")
    options = ("--categories", "tile", "--mvtec_maps", "maps", "--save_maps", "--resolution", "native")
    result = run_test(tmp_path, "--data_root", trained.data, "--run", "run", *options)
    assert result.status == 0, result.err
    images = sorted((trained.data / "tile/test").glob("*/*.png"))
    for seed in ("seed0", "seed1"):
        folder = tmp_path / "maps" / seed / "tile/test"
        saved = [tifffile.imread(folder / path.parent.name / f"{path.stem}.tiff") for path in images]
        np.testing.assert_allclose(saved, maps_of(run / seed, "tile", images), rtol=1e-5)
        assert len(list((run / seed / "maps/tile").rglob("*.png"))) == len(images) == 5
        of_seed = read_results(run / seed)
        assert of_seed["native"]["categories"] == of_seed["categories"]
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"seed0", "seed1"}
    results = read_results(run)
    for part in ("categories", "mean", "std"):
        assert results["native"][part] == results[part]
    assert results["native"]["std"]["mean"]["pixel_auroc"] > 0
    assert (run / "results_native.csv").read_text() == (run / "results.csv").read_text()
