"""VisA's lists, split_csv/1cls.csv and meta.json: what is read, and what can be wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets import DATASETS, DataSource, open_dataset, visa_list
from datasets.base import DataError, Sample, load_mask
from tests.support.commands import run_visa_meta
from tests.support.trees import make_visa, write_image, write_visa_csv, write_visa_meta

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_VISA = REPOSITORY.parent / "shared" / "data" / "visa"
BLANK = np.zeros((4, 4), np.uint8)


def read(root: Path, category: str, split: str) -> list[Sample]:
    return DataSource("visa", root, (), ()).samples(category, split)


def table(root: Path, split: str, category: str = "candle") -> list[tuple]:
    """A split as rows of image, label, defect and mask, with paths relative to the root."""

    def short(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(root).as_posix()

    samples = read(root, category, split)
    return [(short(s.image_path), s.label, s.defect, short(s.mask_path)) for s in samples]


def fails(match: str):
    return pytest.raises(DataError, match=match)


@pytest.mark.parametrize("meta", [False, True], ids=["csv", "meta.json"])
def test_visa(tmp_path, meta):
    make_visa(tmp_path, train=2, good=1, anomalies=1, meta=meta)
    assert table(tmp_path, "train") == [
        ("candle/Data/Images/Normal/0000.JPG", 0, "good", None),
        ("candle/Data/Images/Normal/0001.JPG", 0, "good", None),
    ]
    mask = "candle/Data/Masks/Anomaly/000.png"
    assert table(tmp_path, "test") == [
        ("candle/Data/Images/Normal/0002.JPG", 0, "good", None),
        ("candle/Data/Images/Anomaly/000.JPG", 1, "anomaly", mask),
    ]
    assert set(np.unique(load_mask(tmp_path / mask))) == {0, 1}


def test_visa_leaves_anomalous_training_entries_out(tmp_path):
    make_visa(tmp_path, train=2)
    path = tmp_path / visa_list.CSV
    path.write_text(path.read_text().replace("test,anomaly", "train,anomaly", 1))
    assert [row[1] for row in table(tmp_path, "train")] == [0, 0]


def test_visa_takes_any_kind_name_and_both_slashes_in_meta(tmp_path):
    make_visa(tmp_path, meta=True)
    before = table(tmp_path, "test")
    meta = json.loads((tmp_path / "meta.json").read_text())
    for item in meta["test"]["candle"]:
        item["specie_name"] = "bad" if item["anomaly"] else "normal"
        item["img_path"] = item["img_path"].replace("/", "\\")
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert table(tmp_path, "test") == before


@pytest.mark.parametrize("meta", [False, True], ids=["csv", "meta.json"])
def test_visa_files_that_are_listed_and_not_there(tmp_path, meta):
    make_visa(tmp_path, meta=meta)
    (tmp_path / "candle/Data/Images/Normal/0000.JPG").unlink()
    (tmp_path / "candle/Data/Masks/Anomaly/000.png").unlink()
    (tmp_path / "candle/Data/Images/Anomaly/001.JPG").unlink()
    with fails("^1 error in the train images of candle .*:\nlisted image is not on disk: .*Normal/0000.JPG$"):
        read(tmp_path, "candle", "train")
    lines = "listed mask is not on disk: .*Masks/Anomaly/000.png\nlisted image is not on disk: .*Anomaly/001.JPG"
    with fails(f"^2 errors in .*:\n{lines}$"):
        read(tmp_path, "candle", "test")
    shutil.rmtree(tmp_path / "candle")
    with fails("lists images of which none is in"):
        open_dataset(tmp_path)


def test_visa_takes_meta_json_before_the_csv(tmp_path):
    make_visa(tmp_path, train=3)
    write_visa_meta(tmp_path, [("candle", "train", "normal", "candle/Data/Images/Normal/0001.JPG", "")])
    assert [row[0] for row in table(tmp_path, "train")] == ["candle/Data/Images/Normal/0001.JPG"]


def test_visa_lists_that_differ_are_said(tmp_path):
    make_visa(tmp_path, train=3, good=1, anomalies=1)
    assert run_visa_meta("--data_root", tmp_path).returncode == 0
    assert open_dataset(tmp_path).note == ""  # the same list twice
    csv_path, text = tmp_path / "split_csv/1cls.csv", (tmp_path / "split_csv/1cls.csv").read_text()
    csv_path.write_text(text.replace("candle,train,normal", "candle,test,normal", 1))
    assert open_dataset(tmp_path).note == (
        "meta.json is used, though split_csv/1cls.csv lists other images, splits, labels or masks; move away the one "
        "that is wrong"
    )
    csv_path.write_text(text.replace("normal", "fine", 1))
    assert "meta.json is used, and split_csv/1cls.csv beside it is not: " in open_dataset(tmp_path).note
    assert open_dataset(tmp_path, "visa").note == ""  # was decided


def test_visa_masks_of_normal_images_are_not_read(tmp_path):
    make_visa(tmp_path, train=0)
    row = ("candle", "train", "normal", "candle/Data/Images/Normal/0000.JPG", "candle/not_there.png")
    for write in (write_visa_csv, write_visa_meta):
        write(tmp_path, [row])
        assert table(tmp_path, "train") == [(row[3], 0, "good", None)]


ROW = ("candle", "test", "anomaly", "candle/000.JPG", "candle/000.png")


@pytest.mark.parametrize("write", [write_visa_csv, write_visa_meta])
@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        (3, "/etc/passwd", "path '/etc/passwd' leads out of the data set"),
        (3, "../000.JPG", "path '../000.JPG' leads out of the data set"),
        (3, "candle\\..\\..\\000.JPG", "leads out of the data set"),
        (3, "C:/000.JPG", "leads out of the data set"),
        (4, "candle/../../000.png", "leads out of the data set"),
        (3, "//server/share/000.JPG", "leads out of the data set"),
        (3, "\\\\server\\share\\000.JPG", "leads out of the data set"),
        (3, "\\000.JPG", "leads out of the data set"),
        (4, "D:000.png", "leads out of the data set"),
        (3, "candle/" + "a" * 256, "is not a path"),
        (4, "a/" * 1100 + "b", "is not a path"),
        (0, "a\tb", "'a\\tb' is not a category name"),
        (0, "a\x1b[2J", "is not a category name"),
        (0, "a" * 256, "is not a category name"),
        (3, "", "'' is not a path"),
        (0, "..", "'..' is not a category name"),
        (0, "a/b", "'a/b' is not a category name"),
    ],
)
def test_visa_lists_stay_below_the_root(tmp_path, write, column, value, match):
    write(tmp_path, [ROW[:column] + (value,) + ROW[column + 1 :]])
    with fails(f"(1cls.csv, line 2|meta.json, test/.*\\[0\\]).*{re.escape(match)}"):
        visa_list.read_entries(tmp_path)


def test_visa_paths_with_nul_and_half_characters(tmp_path):
    for text in ("candle/\0.JPG", "candle/\ud800.JPG"):
        write_visa_meta(tmp_path, [("candle", "test", "normal", text, "")])
        with fails("is not a path|is not valid JSON"):
            open_dataset(tmp_path)


@pytest.mark.parametrize("meta", [False, True], ids=["csv", "meta.json"])
@pytest.mark.parametrize("name", ["Images/Anomaly/000.JPG", "Masks/Anomaly/000.png"])
def test_visa_links_that_lead_out(tmp_path, meta, name):
    root = make_visa(tmp_path / "visa", meta=meta)
    path = root / "candle/Data" / name
    outside = path.rename(tmp_path / path.name)
    path.symlink_to(outside)
    with fails(f"listed (image|mask) is a link that leads out of the data set: {re.escape(str(path))}"):
        read(root, "candle", "test")
    path.unlink()
    path.parent.rename(tmp_path / "elsewhere")  # a folder's link as well
    path.parent.symlink_to(tmp_path / "elsewhere")
    outside.rename(path)
    with fails("is a link that leads out of the data set"):
        read(root, "candle", "test")


def test_visa_links_within_the_root_and_of_the_root(tmp_path):
    root = make_visa(tmp_path / "visa")
    path = root / "candle/Data/Images/Anomaly/000.JPG"
    path.rename(root / "kept.JPG")
    path.symlink_to(root / "kept.JPG")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        assert len(read(place, "candle", "test")) == 5


@pytest.mark.parametrize("write", [write_visa_csv, write_visa_meta])
def test_visa_anomaly_without_a_mask(tmp_path, write):
    write_image(tmp_path / "candle" / "000.png", BLANK)
    write(tmp_path, [("candle", "test", "anomaly", "candle/000.png", "")])
    with fails("image has no mask: .*candle/000.png"):
        read(tmp_path, "candle", "test")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("object,split,label,image\n", "has no column mask; expected object,split,label,image,mask"),
        ("", "has no column object, split"),
        ("object,split,label,image,mask\ncandle,test,broken,a.png,\n", "line 2: label 'broken' is not one of"),
        ("object,split,label,image,mask\ncandle,dev,normal,a.png,\n", "line 2: split 'dev' is not one of: train, test"),
        ("object,split,label,image,mask\ncandle,train\n", "line 2: label None"),
        ("\udcff", "is not a split file"),
    ],
)
def test_visa_csv_that_is_wrong(tmp_path, text, match):
    path = write_visa_csv(tmp_path, [])
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with fails(f"1cls.csv.*{match}"):
        read(tmp_path, "candle", "train")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON: nested too deeply"),
        ('{"train": {}, "test": {"candle": NaN}}', "is not valid JSON: JSON is malformed"),
        ("[]", "is not a VisA list"),
        ('{"train": {}}', "is not a VisA list"),
        ('{"train": {"candle": 3}, "test": {}}', "train/candle is not a list"),
        ('{"train": {"candle": [{"img_path": "a.png"}]}, "test": {}}', r"train/candle\[0\] is not an entry"),
        (
            '{"train": {"candle": [{"img_path": "a.png", "mask_path": "", "anomaly": "no"}]}, "test": {}}',
            r"train/candle\[0\]: anomaly 'no' is not 0 or 1",
        ),
        ('{"train": {"candle": [{"img_path": 3, "mask_path": "", "anomaly": 0}]}, "test": {}}', "3 is not a path"),
    ],
)
def test_visa_meta_that_is_wrong(tmp_path, text, match):
    (tmp_path / "meta.json").write_text(text)
    with fails(f"meta.json.*{match}"):
        open_dataset(tmp_path)


def test_visa_without_a_list(tmp_path):
    with fails("neither meta.json nor split_csv/1cls.csv in"):
        read(tmp_path, "candle", "train")


# The official split file


@pytest.mark.skipif(not (SHARED_VISA / visa_list.CSV).is_file(), reason="needs VisA's official split file")
def test_official_csv(tmp_path):
    entries = visa_list.read_csv(SHARED_VISA / visa_list.CSV)
    assert len(entries) == 10_821
    assert tuple(dict.fromkeys(entry.category for entry in entries)) == DATASETS["visa"].CATEGORIES
    counts = Counter((entry.split, entry.label) for entry in entries)
    assert counts == {("train", 0): 8_659, ("test", 0): 962, ("test", 1): 1_200}
    names = Counter((e.category, e.split, e.label, Path(e.image).stem) for e in entries)
    assert max(names.values()) == 1
    assert all(Path(e.mask).stem == Path(e.image).stem for e in entries if e.label == 1)
    (tmp_path / "meta.json").write_text(json.dumps(visa_list.build_meta(entries)))
    assert set(visa_list.read_meta(tmp_path / "meta.json")) == set(entries)
