"""Which files predict.py and calibrate.py take: links, folders that cannot be looked into, names of other kinds."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError, load_image
from datasets.formats import holds_image, why_unread
from tests.support.commands import run_calibrate, run_predict
from tests.support.trees import good_image, touch, write_image
from utils.data.finding import find_images
from utils.system.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


def names(paths) -> list[str]:
    return [path.as_posix() for path in paths]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_all_files_in_a_folder_are_taken_but_those_that_are_no_images(tmp_path):
    touch(tmp_path, "in/a.PNG", "in/b.jfif", "in/c.dat", "in/d", "in/e.heic", "in/notes.txt", "in/f.JSON",
          "in/Thumbs.db", "in/.hidden.png", "in/.cache/x.png")
    found = find_images(["in"])
    assert names(found.paths) == ["in/a.PNG", "in/b.jfif", "in/c.dat", "in/d", "in/e.heic"]
    assert found.unread == {} and found.note() == "passed over as no images: 2 files (in/f.JSON, in/notes.txt)"
    assert names(find_images(["in/notes.txt"]).paths) == ["in/notes.txt"]  # named


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path, "in/z/1.png", "elsewhere/2.png", "in/3.png")
    for name, target in {"in/a": "z", "in/loop": ".", "in/linked": "../elsewhere", "elsewhere/back": "../in"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    (tmp_path / "in/up").symlink_to("..")
    found = find_images(["in"])
    assert names(found.paths) == ["in/3.png", "in/gone.png", "in/z/1.png", "in/linked/2.png"]
    assert names(found.unread) == ["in/up"]
    assert names(find_images(["in"], within=Path("in")).paths) == ["in/3.png", "in/gone.png", "in/z/1.png"]


def test_patterns_end_in_loops_of_links(tmp_path):
    touch(tmp_path, "in/a/1.png", "in/b/2.PNG", "in/b/.hidden/3.png", "in/b/.4.png", "in/c/5.png")
    for name in ("in/a/x", "in/a/y", "in/b/x", "in/b/y", "in/x", "in/y"):
        (tmp_path / name).symlink_to(tmp_path / "in")  # 2 ** 40 ways for one that follows every link
    assert names(find_images(["in/**/*.png"]).paths) == ["in/a/1.png", "in/c/5.png"]
    assert names(find_images(["**/[ab]/*.[pP][nN][gG]"]).paths) == ["in/a/1.png", "in/b/2.PNG"]
    assert names(find_images(["in/?/1.png"]).paths) == ["in/a/1.png"]
    assert names(find_images(["in/b/.*.png"]).paths) == ["in/b/.4.png"]
    assert names(find_images([f"{tmp_path}/in/c/**"]).paths) == [f"{tmp_path}/in/c/5.png"]
    assert names(find_images(["in/**/gone*.png"]).paths) == ["in/**/gone*.png"]  # an error when it is read


def test_what_cannot_be_looked_into_is_told(tmp_path, closed):
    touch(tmp_path, "in/a.png", "in/secret/b.png", "empty/notes.txt")
    (tmp_path / "in/c.png").mkdir()
    closed("in/secret")
    for argument in ("in", "in/**/*.png"):
        found = find_images([argument, "empty"])
        assert names(found.paths) == ["in/a.png", "in/c.png"]  # the folder: an error when it is read
        assert names(found.unread) == ["in/secret", "empty"]
        with pytest.raises(DataError, match="2 .*:\ncannot look into the folder in/secret: Permission.*\nno images in"):
            found.all_paths()
    with pytest.raises(UsageError, match=r"no images in in/secret .*; cannot look into the folder in/secret"):
        find_images(["in/secret"])
    assert find_images(["in/a.png"]).all_paths() == [Path("in/a.png")]


def test_names_are_printable_and_may_be_too_long(tmp_path):
    touch(tmp_path, "in/a\nb.txt", "in/x.png")
    assert find_images(["in"]).note() == "passed over as no images: 1 file (in/a\\nb.txt)"
    assert len(find_images(["in", "x" * 5000]).paths) == 2  # an error when it is read


# Formats


def test_formats_that_are_not_read_are_named_with_what_helps(tmp_path):
    (tmp_path / "phone.jpg").write_bytes(HEIC)
    (tmp_path / "a.avif").touch()
    write_image(tmp_path / "shot.tif", np.zeros((4, 4), np.uint8)).rename(tmp_path / "shot.dng")  # would open as TIFF
    expected = {"phone.jpg": "HEIC .* pillow-heif", "a.avif": "AVIF .* pillow-avif-plugin", "shot.dng": "raw .* rawpy"}
    for name, message in expected.items():
        with pytest.raises(DataError, match=f"cannot read image {name}: {message}"):
            load_image(Path(name))
    assert why_unread(write_image(tmp_path / "x.png", np.zeros((4, 4), np.uint8))) == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
def test_images_are_known_by_content(tmp_path, suffix):
    path = write_image(tmp_path / f"x{suffix}", np.zeros((4, 4, 3), np.uint8))
    assert holds_image(path.rename(tmp_path / "x.dat"))
    (tmp_path / "y.dat").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(pipe, (tmp_path / "x.dat").read_bytes()[:64])
    assert not any(holds_image(Path(name)) for name in ("y.dat", "pipe", "gone", "."))
    os.close(pipe)


# The programs


@pytest.fixture
def photos(own, tmp_path) -> Path:
    """Three images that are scored, one of them under no name of an image, and four files that cannot be."""
    for number, name in enumerate(("in/a.png", "in/b.JPE", "elsewhere/c.bmp")):
        write = Image.fromarray(good_image(np.random.default_rng(number), 64))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write.save(tmp_path / name, format="JPEG" if name.endswith("JPE") else None)
    shutil.copy(tmp_path / "in/a.png", tmp_path / "in/d")
    (tmp_path / "in/e.heic").write_bytes(HEIC)
    touch(tmp_path, "in/f.xyz", "in/notes.txt", "in/secret/g.png")
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    return tmp_path


def test_predict_passes_over_nothing(own, photos, closed):
    closed("in/secret")
    result = run_predict(photos, own.run, "in", "--output", "out.csv")
    assert result.status == 1 and "4 images scored" in result.err and "4 could not be used" in result.err
    assert "passed over as no images: 1 file (in/notes.txt)" in result.err
    rows = {row["path"]: row["error"] for row in csv.DictReader((photos / "out.csv").open(newline=""))}
    assert [path for path, error in rows.items() if not error] == ["in/a.png", "in/b.JPE", "in/d", "in/linked/c.bmp"]
    assert "pillow-heif" in rows["in/e.heic"] and "Permission denied" in rows["in/secret"]
    assert len(result.errors) == 4 and all(any(path in line for line in result.errors) for path, e in rows.items() if e)


def test_calibrate_refuses_what_it_cannot_use(own, photos, closed):
    run = shutil.copytree(own.run, photos / "run")
    before = (run / "checkpoints/widget/thresholds.json").read_bytes()
    closed("in/secret")
    result = run_calibrate(photos, run, "--images", "in", "--far", 0.5)
    assert result.status == 2 and "cannot look into the folder in/secret" in result.err
    assert (run / "checkpoints/widget/thresholds.json").read_bytes() == before
