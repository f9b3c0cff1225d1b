"""From photographs in folders of any names to scores: every program goes by the names that the run was given."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tests.support.commands import run_check, run_predict, run_process, run_test, run_train
from tests.support.trees import good_image, write_image
from utils.runs.settings import read_config

SMALL = ["--image_size", 64, "--batch_size", 4, "--epochs_stage1", 1, "--epochs_stage2", 1, "--output", "run"]


@pytest.fixture
def photographs(tmp_path):
    """A messy tree: cameras that begin to count anew each day, and names of the user's own."""
    root, rng = tmp_path / "my caps", np.random.default_rng(0)
    for day in ("monday 3rd", "tuesday 4th"):
        for index in range(8):
            write_image(root / f"fine ones/{day}/IMG_{index:04}.png", good_image(rng, 48))
        bent = good_image(rng, 48)
        bent[10:30, 10:30] = 255
        write_image(root / f"bent/{day}/IMG_0000.png", bent)
    write_image(root / "others/IMG_0000.png", good_image(rng, 48))
    (root / "notes.txt").write_text("by hand")
    return root


def test_names_are_given_once(tmp_path, photographs):
    names = ["--good", "fine ones", "--bad", "bent"]
    checked = run_check(tmp_path, "--data_root", photographs, *names)
    assert checked.status == 0 and "my caps (own: my caps): 0 errors" in checked.out
    assert "folder is neither of good photographs nor of others beside such" in checked.out
    masks = run_process(tmp_path, "scripts/fore_extractor.py", "--data_path", photographs, *names)
    assert masks.status == 0, masks.err
    trained = run_train(tmp_path, "--data_root", photographs, "--preset", "own", *names, *SMALL)
    assert trained.status == 0, trained.err
    assert "foreground masks made on the fly" not in trained.err
    config = read_config(tmp_path / "run")
    assert (config["dataset"], config["good"], config["bad"]) == ("own", ["fine ones"], ["bent"])
    again = run_train(tmp_path, "--resume", "run")
    assert again.status == 0 and "done; score it with: " in again.out
    tested = run_test(tmp_path, "--data_root", photographs, "--run", "run", "--save_maps")
    assert tested.status == 0, tested.err
    rows = list(csv.DictReader((tmp_path / "run/scores.csv").open()))
    assert [row["path"] for row in rows if row["label"] == "1"] == [
        "bent/monday 3rd/IMG_0000.png", "bent/tuesday 4th/IMG_0000.png",
    ]
    assert {row["defect"] for row in rows} <= {"good", "bent"}
    assert (tmp_path / "run/maps/my caps/bent/tuesday 4th/IMG_0000.png").is_file()
    predicted = run_predict(tmp_path, "run", photographs / "others")
    assert predicted.status == 0 and "others/IMG_0000.png" in predicted.out


def test_a_guess_is_printed_and_photographs_alone_are_enough(tmp_path, photographs):
    (photographs / "fine ones").rename(photographs / "OK")
    result = run_train(tmp_path, "--data_root", photographs, "--preset", "own", *SMALL)
    assert result.status == 0, result.err
    assert "note: taken for good photographs: those in OK/monday 3rd, OK/tuesday 4th, for others those in" in result.err
    assert "good images: 1 and 1 epochs; " in result.err
    monday = ["--data_root", photographs / "OK/monday 3rd", "--dataset", "own"]
    flat = run_train(tmp_path, *monday, "--preset", "own", *SMALL[:-1], "flat")
    assert flat.status == 0, flat.err
    assert "python scripts/predict.py flat IMAGES" in flat.out


def test_a_folder_without_textures_is_offered_the_preset(tmp_path, photographs):
    result = run_train(tmp_path, "--data_root", photographs, "--good", "fine ones")
    assert result.status == 2
    offer = f"python train.py --data_root '{photographs}' --preset own --dataset own --good 'fine ones'"
    assert result.errors[0].endswith(f"for photographs of your own, without any download: {offer}")
