"""README's picture: how it is composed, and that the committed one is small enough for a page."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from docs.make_picture import GAP, SHOWN, SIDE, compose
from tests.support.commands import ROOT

SCRIPT = ROOT / "docs/make_picture.py"


@pytest.fixture
def maps(tmp_path):
    """Heat maps of a run, as test.py writes them: a grey photograph beside a red map, (S, 2 S)."""
    for number, kind in enumerate(SHOWN):
        path = tmp_path / "run/maps" / kind / "000.png"
        path.parent.mkdir(parents=True)
        both = np.zeros((32, 64, 3), np.uint8)
        both[:, :32], both[:, 32:, 0] = 10 * number, 255
        Image.fromarray(both).save(path)
    return tmp_path / "run"


def test_photographs_stand_above_their_maps(maps):
    picture = np.asarray(compose([maps / "maps" / kind / "000.png" for kind in SHOWN]))
    step = SIDE + GAP
    assert picture.shape == (step + SIDE, step * len(SHOWN) - GAP, 3)
    for column in range(len(SHOWN)):
        middle = column * step + SIDE // 2
        assert picture[SIDE // 2, middle].tolist() == [10 * column] * 3
        assert picture[step + SIDE // 2, middle].tolist() == [255, 0, 0]
    assert picture[SIDE + GAP // 2].min() == 255


def test_the_program_writes_it_or_says_what_is_missing(maps, tmp_path):
    command = [sys.executable, SCRIPT, maps, "--output", tmp_path / "out.png"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "out.png").is_file()
    (maps / "maps" / SHOWN[-1] / "000.png").unlink()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and SHOWN[-1] in done.stderr and "make demo" in done.stderr


def test_the_committed_picture_is_small():
    path = ROOT / "docs/demo.png"
    with Image.open(path) as picture:
        assert picture.width <= 1000
    assert path.stat().st_size < 150_000
