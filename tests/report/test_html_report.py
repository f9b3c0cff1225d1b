"""The report without a browser: its numbers, its pictures, and that no name can break out of the page."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from datasets.base import Sample
from models.aand import build_model
from models.amplification import AmplifiedTeacher
from models.teacher import build_teacher
from tests.support.commands import run_process, run_report
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.drawing.charts import score_histogram, score_range, ticks
from utils.drawing.heat_maps import color_table
from utils.metrics.tables import Statistic
from utils.report.page import (
    CategoryReport,
    best_threshold,
    build_page,
    build_section,
    gallery_data,
    quantise,
    worst_images,
)
from utils.report.stage1 import picture_stage1, stage1_images

EVIL = 'a"b<script>alert(1)</script><!--\'&'


def decode(uri: str, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """The picture in a data URI; colours as RGB."""
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8), flags)
    return picture if picture.ndim == 2 else picture[..., ::-1]


def make_category(name: str = "part", count: int = 8, size: int = 32, most_images: int = 100) -> CategoryReport:
    """A category with `count` images, cut from a photograph, every second one anomalous with a square defect."""
    rng = np.random.default_rng(0)
    photo, labels = skimage.data.astronaut(), np.arange(count) % 2
    corners = rng.integers(0, 512 - size, (count, 2))
    images = np.stack([photo[r : r + size, c : c + size] for r, c in corners])
    masks = np.zeros((count, size, size), np.uint8)
    masks[labels == 1, 4:12, 6:20] = 1
    maps = cv2.GaussianBlur(rng.random((size, size, count), np.float32), (0, 0), 3).transpose(2, 0, 1) + 0.3 * masks
    maps = np.ascontiguousarray(maps.astype(np.float32))
    samples = [Sample(Path(f"{i:03}.png"), int(label), "hole" if label else "good") for i, label in enumerate(labels)]
    records = [{"category": name, "stage": 1, "epoch": e, "loss": 1 / e, "gate_recall": 0.5} for e in (1, 2, 3)]
    records += [{"category": name, "stage": 2, "epoch": e, "loss": 1 / e, "image_auroc": 0.9} for e in (1, 2)]
    test_set = TestSet(torch.from_numpy(images), labels, masks)
    prediction = Prediction(maps, maps.max(axis=(1, 2)))
    return CategoryReport(name, samples, test_set, test_set.images, prediction, records, [], most_images)


def section_data(section: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', section, re.S)[1])


# ---- Numbers


def test_best_threshold_is_the_best_of_all():
    def f1(labels, flagged):
        return 2 * (flagged & (labels == 1)).sum() / (flagged.sum() + labels.sum())

    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, scores = rng.permutation([0, 0, 0, 1, 1, 1, 1]), rng.integers(0, 6, 7) / 4
        threshold = best_threshold(labels, scores)
        tried = [f1(labels, scores >= t) for t in np.linspace(-0.1, 1.6, 200)]
        assert f1(labels, scores >= threshold) == pytest.approx(max(tried))
    assert best_threshold(np.array([0, 1]), np.array([1.0, 2.0])) == 1.5  # half way: neither image is at the edge


def test_worst_images_come_first():
    labels, scores = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0.1, 0.9, 0.5, 0.4, 0.2, 0.8, 0.6])
    assert worst_images(labels, scores, 7) == [1, 2, 0, 4, 3, 6, 5]
    assert worst_images(labels, scores, 4) == [1, 2, 4, 3]
    assert worst_images(labels, scores, 6) == [1, 2, 0, 4, 3, 6]
    assert worst_images(labels * 0, scores, 2) == [1, 5]


def test_histogram_bars_hold_every_image():
    good, anomalous = np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.0, 2.0])
    svg = score_histogram(good, anomalous, bins=4)
    bars = re.findall(r'class="bar (\w+)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', svg)
    unit = max(float(height) for _, _, _, height in bars) / 3  # the tallest bar is three images
    counts = [(style, round(float(height) / unit, 1)) for style, _, _, height in bars]
    assert counts == [("good", 3), ("good", 1), ("anomalous", 1), ("anomalous", 1)]
    middle = max(float(y) + float(h) for style, _, y, h in bars if style == "good")
    assert all(float(y) >= middle - 0.1 for style, _, y, _ in bars if style == "anomalous")  # downwards


def test_score_range_passes_all_and_none():
    low, high = score_range(np.array([1.0, 3.0]))
    assert low < 1
    assert high > 3
    low, high = score_range(np.array([2.0, 2.0]))
    assert low < 2 < high


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(0, 20) == [0, 5, 10, 15, 20]
    assert ticks(-3, 3, whole=True) == [-2, 0, 2]
    assert ticks(0, 2, whole=True) == [0, 1, 2]
    assert ticks(0, 1, whole=True) == [0, 1]
    assert ticks(0.475, 1.025) == pytest.approx([0.6, 0.8, 1.0])
    assert ticks(1.413, 1.447) == pytest.approx([1.42, 1.43, 1.44])


# ---- Pictures


def test_maps_are_stored_in_steps_rounded_down():
    values = np.array([[0.0, 0.0039, 0.5], [0.9999, 1.0, 2.0]])
    assert quantise(values, 0, 1).tolist() == [[0, 0, 127], [254, 255, 255]]
    assert quantise(np.ones((2, 2)), 1, 1).tolist() == [[0, 0], [0, 0]]


def test_gallery_holds_the_test_images_their_maps_and_masks():
    category = make_category()
    data = gallery_data(category)
    assert data["scores"] == category.prediction.scores.tolist()
    assert data["labels"] == category.test_set.labels.tolist()
    assert len(data["images"]) == 8
    for image in data["images"]:
        index = next(i for i, sample in enumerate(category.samples) if sample.name == image["name"])
        expected = category.test_set.images[index].numpy().astype(int)
        assert np.abs(decode(image["image"]).astype(int) - expected).mean() < 8  # JPEG
        stored = data["low"] + decode(image["map"]) / 255 * (data["high"] - data["low"])
        assert np.abs(stored - category.prediction.maps[index]).max() <= (data["high"] - data["low"]) / 255 + 1e-6
        assert (image["mask"] is None) == (image["label"] == 0)
        if image["mask"]:
            assert (decode(image["mask"]) // 255 == category.test_set.masks[index]).all()


def test_stage1_pictures_are_of_the_gate_and_the_similarities(one_thread):
    torch.manual_seed(0)
    model = build_model(build_teacher("efficientnet_lite0", "random")).eval()
    assert isinstance(model.teacher, AmplifiedTeacher)
    image = skimage.data.astronaut()[100:164, 200:264].copy()
    images, foregrounds = torch.from_numpy(image)[None], torch.ones(1, 64, 64, dtype=torch.uint8)
    textures = torch.from_numpy(skimage.data.coffee()[:64, :64].copy()).permute(2, 0, 1)[None]
    picture, again = (picture_stage1(model, images, foregrounds, textures, seed=3)[0] for _ in range(2))
    assert (picture.image == again.image).all()
    assert picture.mask.any()
    assert (picture.image[picture.mask == 0] == image[picture.mask == 0]).all()  # an anomaly, and only there
    assert (picture.image != image).any()
    inputs = model.normalise(torch.from_numpy(picture.image).permute(2, 0, 1)[None])
    with torch.inference_mode():
        clean = model.pretrained(model.normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]))
        anomalous = model.pretrained(inputs)
        outputs = model.teacher.amplify(anomalous)
    for level, gate in enumerate(picture.gates):
        expected = outputs[level].gate[0, 0].numpy()
        assert gate.shape == (64, 64)
        assert [gate[0, 0], gate[-1, -1]] == pytest.approx([expected[0, 0], expected[-1, -1]], abs=1e-5)  # its corners
    for shown, features in ((picture.before, anomalous), (picture.after, [output.amplified for output in outputs])):
        pairs = [(a[0, :, 0, 0], b[0, :, 0, 0]) for a, b in zip(clean, features, strict=True)]
        corner = np.mean([float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs])
        assert shown[0, 0] == pytest.approx(corner, abs=1e-4)
    assert [shown.shape for shown in stage1_images(picture)] == 6 * [(64, 64, 3)]


def test_color_table_runs_from_dark_to_bright():
    brightness = color_table() @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > -1).all()  # perceptually uniform: never darker again
    assert brightness[0] < 5
    assert brightness[-1] > 220


# ---- The page


class Tags(HTMLParser):
    """Counts the elements of a page, and keeps its text outside of scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.words, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.words.append(data)


def make_page(name: str, count: int = 8, **changes) -> str:
    rows = {name: {"image_auroc": 0.5, "aupro": 1 / 3}}
    sections = [build_section(replace(make_category(name, count), **changes))]
    gains, commands = {name: Statistic(0.1, None)}, [f"python {name}"]
    return build_page(f"Report {name}", {name: name}, [rows], gains, sections, commands)


def test_names_cannot_break_out_of_the_page():
    usual, evil = Tags(make_page("part")), Tags(make_page(EVIL))
    assert evil.tags == usual.tags
    assert "".join(evil.words).count(EVIL) >= 4  # title, heading, facts, table, summary, command: as text
    assert [name for name, _ in evil.attributes] == [name for name, _ in usual.attributes]
    category = make_category()
    sample = Sample(Path(f"{EVIL}.png"), 1, EVIL)
    section = build_section(CategoryReport(**{**vars(category), "samples": [sample] * 8}))
    assert EVIL not in section
    assert section_data(section)["images"][0]["name"] == sample.name
    assert Tags(section).tags == Tags(build_section(category)).tags


def test_table_shows_percent_dashes_and_gains():
    words = "".join(Tags(make_page("part")).words)
    for text in ("50.00", "33.33", "–", "best epoch on test − result", "10.00", "Mean"):
        assert text in words


def test_what_cannot_be_computed_stays_away():
    category = make_category()
    good_only = TestSet(category.test_set.images, category.test_set.labels * 0, None)
    section = build_section(CategoryReport(**{**vars(category), "test_set": good_only, "records": []}))
    assert "8 good, 0 anomalous" in section
    for absent in (">ROC<", ">PRO<", "Stage I", "Stage II", "NaN"):
        assert absent not in section
    assert {image["mask"] for image in section_data(section)["images"]} == {None}


@pytest.mark.parametrize("loss", [0.0, 1.0, 1e30, 3e38, -3e38])
def test_a_loss_that_stays_the_same_is_drawn(loss):
    records = [{"category": "part", "stage": 2, "epoch": epoch, "loss": loss} for epoch in (1, 2)]
    section = build_section(CategoryReport(**{**vars(make_category()), "records": records}))
    assert "Stage II: loss" in section
    assert not re.search(r"nan|inf\b", section.split("Stage II: loss")[1].split("</figure>")[0])


def test_only_the_most_telling_images_are_shown():
    section = build_section(make_category(most_images=4))
    assert "The 4 most telling of 8 test images." in section
    data = section_data(section)
    assert len(data["images"]) == 4
    assert len(data["scores"]) == 8


def test_a_category_of_100_images_stays_below_15_mb():
    assert len(build_section(make_category(count=100, size=256)).encode()) < 15e6


# ---- The program


def test_report_of_a_run(trained, tmp_path):
    result = run_report(trained.cwd, trained.aand, "--output", tmp_path / "report.html")
    assert result.status == 0, result.err
    assert str(tmp_path / "report.html") in result.out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    words = "".join(Tags(page).words)
    for text in ("bottle", "tile", "Stage I on synthetic anomalies", "gate, level 3", "similarity after", "Mean"):
        assert text in words
    assert "Recipepublished" in words and "Resultlast epoch" in words  # a name and its value
    rows = json.loads((trained.aand / "results.json").read_text(encoding="utf-8"))["categories"]
    for row in rows.values():  # scored on the way, as by test.py
        assert f"{100 * row['aupro']:.2f}" in words
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing is fetched


def test_report_of_the_baseline_has_no_stage1(trained, tmp_path):
    options = ("--output", tmp_path / "report.html", "--categories", "tile")
    assert run_report(trained.cwd, trained.rd4ad, *options).status == 0
    words = "".join(Tags((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "tile" in words
    assert "bottle" not in words.split("How to repeat it")[0]
    assert "Stage I on synthetic anomalies" not in words
    assert "Recipe" not in words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["absent"], "absent is not a run folder"),
        (["{run}", "--categories", "cable"], "has no trained cable; it has: bottle, tile"),
        (["{run}", "--data_root", "absent"], "absent does not exist"),
    ],
)
def test_report_of_what_is_not_there(trained, tmp_path, options, message):
    arguments = [option.format(run=trained.aand) for option in options]
    result = run_process(tmp_path, "scripts/report.py", *arguments)
    assert result.status == 2
    assert message in result.errors[0]
    assert list(tmp_path.iterdir()) == []
