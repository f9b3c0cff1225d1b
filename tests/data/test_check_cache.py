"""What the check of a data set remembers of files, and scripts/check_data.py."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import base, decoding
from datasets.base import decoded, read_picture
from tests.support.broken import NOISE, check, cut, make_broken
from tests.support.commands import run_check, run_process
from tests.support.raw_files import write_png
from tests.support.trees import make_folder, make_mvtec, write_image
from utils.data import facts as file_facts


@dataclass
class Opened:
    """How often each file was decoded."""

    files: Counter = field(default_factory=Counter)

    def take(self) -> dict[str, int]:
        files, self.files = self.files, Counter()
        return dict(files)


@pytest.fixture
def opened(monkeypatch):
    calls = Opened()

    def counted(path, *arguments, **options):
        calls.files[path.name] += 1
        return decoded(path, *arguments, **options)

    monkeypatch.setattr(base, "decoded", counted)
    return calls


ONE = {"train": 1, "good": 1, "defects": {"hole": 1}}


def make_one(tmp_path: Path) -> Path:
    """A category whose four files have names of their own."""
    root = make_folder(tmp_path / "data", **ONE)
    for folder, old, new in (
        ("train/good", "000", "a"),
        ("test/good", "000", "b"),
        ("test/hole", "000", "c"),
        ("ground_truth/hole", "000_mask", "c_mask"),
    ):
        path = root / "widget" / folder / f"{old}.png"
        path.rename(path.with_stem(new))
    return root


ALL = {"a.png": 1, "b.png": 1, "c.png": 1, "c_mask.png": 1}


def test_what_has_not_changed_is_not_opened_again(tmp_path, opened):
    root = make_one(tmp_path)
    cut(root / "widget/test/good/b.png")
    first = check(root)
    assert opened.take() == ALL
    assert check(root) == first == ["error: image cannot be read: widget/test/good/b.png"]
    assert opened.take() == {}


def test_what_has_changed_is_opened_again(tmp_path, opened):
    root = make_one(tmp_path)
    assert check(root) == []
    opened.take()
    write_image(root / "widget/ground_truth/hole/c_mask.png", np.zeros((32, 32), np.uint8))
    path = root / "widget/test/good/b.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # of the same size
    assert check(root) == ["warning: mask without a single anomalous pixel: widget/ground_truth/hole/c_mask.png"]
    assert opened.take() == {"b.png": 1, "c_mask.png": 1}


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    root = make_folder(tmp_path / "data", **ONE)
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache/checks.json")
    result = run_process(tmp_path, "scripts/check_data.py", "--data_root", root, "--cache_dir", "cache")
    assert result.status == 0 and "cache/checks.json is no file that this program wrote" in result.err


def digest(path: Path) -> str:
    facts = file_facts.FactStore(path.parent / "cache").of_image(path)
    assert not facts.unreadable
    return facts.digest


def test_a_picture_is_the_same_in_files_of_all_bits(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    grey[0, 0] = 255
    first = digest(write_image(tmp_path / "a.png", grey))
    deep = grey.astype(np.uint16)
    others = {
        "rgb.png": np.dstack([grey] * 3), "rgba.png": np.dstack([grey] * 4), "times 257.png": deep * 257,
        "times 16.png": deep * 16, "times 256.tif": deep * 256, "as it is.png": deep, "int.tif": grey.astype(np.int32),
        "float.tif": grey.astype(np.float32), "to 1.tif": grey.astype(np.float32) / 255,
    }
    for name, values in others.items():
        assert digest(write_image(tmp_path / name, values)) == first, name
    assert digest(write_png(tmp_path / "deep rgb.png", np.dstack([deep * 257] * 3))) == first
    turned = Image.Exif()
    turned[274] = 3
    Image.fromarray(grey[::-1, ::-1]).save(tmp_path / "turned.png", exif=turned)
    assert digest(tmp_path / "turned.png") == first


def test_the_bytes_order_of_a_tiff_is_not_in_the_picture(tmp_path):
    values = np.arange(1000, 1063, dtype=np.uint16).reshape(7, 9)
    big = write_image(tmp_path / "big.tif", values.astype(">u2"))
    assert digest(big) == digest(write_image(tmp_path / "little.tif", values))
    assert read_picture(big).values.dtype == np.uint16


def test_other_pictures_are_others(tmp_path):
    values = np.arange(1000, 1063, dtype=np.uint16).reshape(7, 9)
    pictures = [
        values, values + 1, values.T, values / np.float32(3), -values.astype(np.int32), values.astype(np.int32) * 99,
        np.dstack([values // 256] * 2 + [values // 256 + 1]).astype(np.uint8),
    ]
    found = [digest(write_image(tmp_path / f"{number}.tif", one)) for number, one in enumerate(pictures)]
    assert len(set(found)) == len(pictures)


DAMAGES = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "another Pillow": lambda text: text.replace("Pillow ", "Pillow 0."),
    "another digest": lambda text: text.replace(json.loads(text)["image"].popitem()[1][4], "0" * 32),
    "no checksum": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "checksum"}),
    "no rows": lambda text: json.dumps(json.loads(text) | {"mask": {"x": None}}),
    "other types": lambda text: json.dumps(json.loads(text) | {"mask": {"x": [1, 2, "3", 4, "", True, ""]}}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_written_anew(tmp_path, opened, capsys, damage):
    root, path = make_one(tmp_path), tmp_path / "cache/checks.json"
    check(root)
    whole = path.read_text()
    path.write_text(DAMAGES[damage](whole), errors="surrogateescape")
    opened.take()
    capsys.readouterr()
    assert check(root) == []
    assert opened.take() == ALL
    assert path.read_text() == whole
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "is damaged" in line]
    assert said == [f"{path} is damaged; it is made anew"] * (damage != "another Pillow")
    assert [file.name for file in path.parent.iterdir()] == ["checks.json"]


@pytest.mark.parametrize("content", ["\udcff", "[]", '{"image": {}, "mask": {}}', "my own checks"])
def test_a_file_of_others_in_its_place_stays(tmp_path, opened, capsys, content):
    root, path = make_one(tmp_path), tmp_path / "cache/checks.json"
    path.parent.mkdir()
    path.write_text(content, errors="surrogateescape")
    assert check(root) == [] == check(root)
    assert opened.take() == {name: 2 for name in ALL}
    assert path.read_text(errors="surrogateescape") == content
    assert f"{path} is no file that this program wrote" in capsys.readouterr().err


def test_other_entries_stay(tmp_path, opened):
    root = make_mvtec(tmp_path / "data", ["bottle", "tile"], **ONE)
    for categories in (["bottle"], ["tile"]):
        check(root, categories)
        assert sum(opened.take().values()) == 4
    assert check(root) == []
    assert opened.take() == {}
    shutil.rmtree(tmp_path / "cache")
    check(root, splits=["test"])
    assert sum(opened.take().values()) == 6
    check(root)
    assert sum(opened.take().values()) == 2


def test_what_the_system_refuses_is_tried_again(tmp_path, monkeypatch):
    """A permission that is given later changes neither a file's size nor its time."""
    root, broken = make_one(tmp_path), ["error: image cannot be read: widget/test/good/b.png"]
    with monkeypatch.context() as patch:
        real = decoding.open_regular

        def refuse(path):
            if path.name == "b.png":
                raise PermissionError(13, "Permission denied")
            return real(path)

        patch.setattr(decoding, "open_regular", refuse)
        assert check(root) == broken
    assert check(root) == []


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    root = make_one(tmp_path)
    (tmp_path / "cache").touch()  # a file where the folder should be; root may write anywhere
    cut(root / "widget/test/good/b.png")
    assert check(root) == ["error: image cannot be read: widget/test/good/b.png"]
    notices = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "cannot be written" in line]
    assert len(notices) == 1
    assert notices[0].startswith(f"{tmp_path / 'cache/checks.json'} cannot be written (")


# scripts/check_data.py


def test_script_lists_errors_then_warnings_and_counts_them(tmp_path):
    expected = ["warning: the layout is not certain", *make_broken(tmp_path / "data")]
    result = run_check(tmp_path, "--data_root", "data", "--workers", 2)
    assert result.status == 1
    *lines, summary, missing = result.out.splitlines()
    assert lines[:2] == ["bottle, train: 2 images of 8 bits", "bottle, test: 3 images of 8 bits"]
    lines = lines[4:]  # tile has two of its own
    kinds = [": ".join(line.split(": ")[:2]) for line in expected]
    assert [": ".join(line.split(": ")[:2]) for line in lines] == sorted(kinds, key=lambda kind: kind[0] != "e")
    assert lines[0] == (
        "error: image has no mask: data/bottle/test/crack/000.png "
        "(no 000_mask.png or 000.png in data/bottle/ground_truth/crack)"
    )
    assert summary == "data (mvtec: bottle, tile): 6 errors and 4 warnings"
    assert missing.startswith("not on disk, not checked: cable, ")
    assert (tmp_path / "cache/checks.json").is_file()


def test_exit_statuses(tmp_path):
    root = make_folder(tmp_path / "data")
    options = ("--data_root", root, "--cache_dir", "elsewhere")
    result = run_check(tmp_path, *options)
    assert (result.status, result.out) == (
        0,
        "widget, train: 3 images of 8 bits\nwidget, test: 5 images of 8 bits\n"
        f"{root} (folder: widget): 0 errors and 0 warnings\n",
    )
    write_image(root / "widget/test/0.png", NOISE)
    result = run_check(tmp_path, *options)
    assert (result.status, result.out.splitlines()[-1]) == (0, f"{root} (folder: widget): 0 errors and 1 warning")
    cut(root / "widget/test/hole/000.png")
    result = run_process(tmp_path, "scripts/check_data.py", *map(str, options))
    assert (result.status, result.out.splitlines()[-1]) == (1, f"{root} (folder: widget): 1 error and 1 warning")
    assert [path.name for path in tmp_path.iterdir()].count("cache") == 0
    for wrong in (["--data_root", "absent"], ["--categories", "teapot"], ["--workers", 0]):
        result = run_check(tmp_path, *options, *wrong)
        assert result.status == 2
        assert len(result.errors) == 1
