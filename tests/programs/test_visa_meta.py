"""scripts/visa_meta.py: the list that it writes, and how it fails."""

from __future__ import annotations

import json
import re
import shutil

from tests.datasets.test_visa import table
from tests.support.commands import run_visa_meta
from tests.support.trees import make_visa, write_visa_csv


def test_visa_meta_agrees_with_the_csv(tmp_path):
    make_visa(tmp_path, ["pcb1", "candle"], train=2, good=1, anomalies=1)
    splits = [(category, split) for category in ("candle", "pcb1") for split in ("train", "test")]
    before = [table(tmp_path, split, category) for category, split in splits]
    done = run_visa_meta("--data_root", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 categories, 4 train, 4 test" in done.stdout
    assert "not on disk" not in done.stdout
    shutil.rmtree(tmp_path / "split_csv")
    assert [table(tmp_path, split, category) for category, split in splits] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candle", "meta.json", "pcb1"]  # nothing left over
    assert json.loads((tmp_path / "meta.json").read_text())["test"]["pcb1"] == [
        {
            "img_path": "pcb1/Data/Images/Normal/0002.JPG",
            "mask_path": "",
            "cls_name": "pcb1",
            "specie_name": "",
            "anomaly": 0,
        },
        {
            "img_path": "pcb1/Data/Images/Anomaly/000.JPG",
            "mask_path": "pcb1/Data/Masks/Anomaly/000.png",
            "cls_name": "pcb1",
            "specie_name": "",
            "anomaly": 1,
        },
    ]


def test_visa_meta_without_images_says_so(tmp_path):
    make_visa(tmp_path, train=2, good=1, anomalies=2)
    shutil.rmtree(tmp_path / "candle" / "Data" / "Masks")
    assert "note: 2 of the 7 listed images and masks are not on disk" in run_visa_meta("--data_root", tmp_path).stdout


def test_visa_meta_errors_are_one_line(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        done = run_visa_meta("--data_root", root)
        assert done.returncode == 2
        assert re.fullmatch(r"error: cannot read .*1cls.csv: No such file.*\n", done.stderr)
    write_visa_csv(tmp_path, [("candle", "train", "odd", "a.png", "")])
    done = run_visa_meta("--data_root", tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*line 2: label 'odd'.*\n", done.stderr)
    assert not (tmp_path / "meta.json").exists()
