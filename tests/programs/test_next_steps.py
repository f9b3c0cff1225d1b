"""What programs say when they are done: commands that can be pasted, and that work; and what train.py makes of test
files that only test.py needs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from tests.support.broken import NOISE, cut
from tests.support.commands import TINY, listing, run_calibrate, run_predict, run_process, run_test, run_train
from tests.support.trees import good_image, make_folder, make_mvtec, write_image
from utils.runs.settings import read_config
from utils.system.errors import command

RD4AD = [*TINY, "--method", "rd4ad"]
PROGRAMS = {"test.py": run_test, "scripts/predict.py": run_predict, "scripts/calibrate.py": run_calibrate}


def follow(cwd, text, **stand_for):
    """Call what is advised, what is not known being replaced."""
    python, program, *arguments = shlex.split(text)
    assert python == "python"
    return PROGRAMS[program](cwd, *(stand_for.get(argument, argument) for argument in arguments))


def advised(text, program):
    """The commands of a program in a text that ends its advice with a semicolon, a comma or the line."""
    return re.findall(rf"python {re.escape(program)} [^;\n]*", text)


def say_done(result):
    assert result.status == 0, result.err
    return next(line for line in result.out.splitlines() if line.startswith("done; "))


def lines_of(result):
    return result.err.replace("\r", "\n").splitlines()


# Commands


WORDS = ["plain", "a b", "it's", 'say "x"', "$HOME;ls", "a\nb", "\x1b[2J'\\", "\u202egnp", "~"]


@pytest.mark.parametrize("word", WORDS)
def test_a_command_is_one_line_and_the_shell_reads_the_word_again(word):
    text = command("echo.py", "--run", word, "IMAGES")
    assert text.isprintable() and text.startswith("python echo.py --run ") and text.endswith(" IMAGES")
    script = f"python() {{ printf '%s\\0' \"$@\"; }}; {text}"
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env=environment)
    assert done.stdout.decode().split("\0")[:-1] == ["echo.py", "--run", word, "IMAGES"]


def test_done_names_test_py_and_the_command_works(tmp_path):
    make_mvtec(tmp_path / "my data", train=4)
    done = say_done(run_train(tmp_path, "--data_root", "my data", *RD4AD, "--output", "it's a run"))
    [text] = advised(done, "test.py")
    assert text == """python test.py --data_root 'my data' --run 'it'"'"'s a run'"""
    assert follow(tmp_path, text).status == 0
    assert (tmp_path / "it's a run/results.csv").is_file()


def test_done_names_predict_py_where_there_are_no_test_images(tmp_path):
    make_folder(tmp_path / "data", ["widget"], train=4)
    shutil.rmtree(tmp_path / "data/widget/test")
    shutil.rmtree(tmp_path / "data/widget/ground_truth")
    done = say_done(run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run"))
    assert not advised(done, "test.py")
    write_image(tmp_path / "photos/0.png", good_image(np.random.default_rng(7), 32))
    [setting], [scoring] = advised(done, "scripts/calibrate.py"), advised(done, "scripts/predict.py")
    result = follow(tmp_path, setting, GOOD_IMAGES="photos")
    assert result.status == 0, result.err
    result = follow(tmp_path, scoring, IMAGES="photos")
    assert result.status == 0 and " p 1.0000 " in result.out
    done = say_done(run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run"))
    assert not advised(done, "scripts/calibrate.py")  # there are thresholds now


def test_done_tells_categories_with_test_images_from_those_without(tmp_path):
    make_folder(tmp_path / "data", ["gear", "widget"], train=4)
    shutil.rmtree(tmp_path / "data/gear/test")
    shutil.rmtree(tmp_path / "data/gear/ground_truth")
    done = say_done(run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run"))
    [scoring], [predicting] = advised(done, "test.py"), advised(done, "scripts/predict.py")
    assert scoring.endswith("--run run --categories widget")
    assert follow(tmp_path, scoring).status == 0
    assert "no test images of gear:" in done and predicting.endswith("run IMAGES --category gear")
    result = follow(tmp_path, predicting, IMAGES="data/gear/train")
    assert result.status == 0 and "calibrate.py run --images DIR --categories gear" in result.err
    [setting] = advised(result.err, "scripts/calibrate.py")
    result = follow(tmp_path, setting, DIR="data/widget/test/good")
    assert result.status == 0, result.err


def test_several_seeds_without_test_images_name_predict_py(tmp_path):
    make_folder(tmp_path / "data", ["widget"], train=4)
    shutil.rmtree(tmp_path / "data/widget/test")
    shutil.rmtree(tmp_path / "data/widget/ground_truth")
    result = run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run", "--seeds", 3, 4)
    assert result.status == 0, result.err
    [predicting] = advised(result.out, "scripts/predict.py")
    assert follow(tmp_path, predicting, IMAGES="data/widget/train").status == 0


# Test files that only test.py needs


def break_test(data):
    """Break test files in four ways; what training needs is sound."""
    cut(data / "bottle/test/good/001.png")
    cut(data / "bottle/ground_truth/hole/000_mask.png")
    write_image(data / "bottle/ground_truth/crack/001_mask.png", NOISE[:8, :8, 0])
    (data / "bottle/ground_truth/crack/000_mask.png").rename(data / "bottle/ground_truth/crack/777_mask.png")


WARNED = {
    "image has no mask": "bottle/test/crack/000.png",
    "mask has no image": "bottle/ground_truth/crack/777_mask.png",
    "image cannot be read": "bottle/test/good/001.png",
    "mask and image differ in size": "bottle/ground_truth/crack/001_mask.png",
    "mask cannot be read": "bottle/ground_truth/hole/000_mask.png",
}


def test_training_warns_of_errors_in_test_files_and_goes_on(tmp_path):
    data = make_mvtec(tmp_path / "data", train=4)
    break_test(data)
    result = run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run")
    done = say_done(result)
    lines = lines_of(result)
    for message, name in WARNED.items():
        assert any(line.startswith(f"warning, 1 time: {message}: data/{name}") for line in lines), message
    assert "training goes on without these test files; test.py will refuse them" in lines
    assert "list all with: python scripts/check_data.py --data_root data --dataset mvtec" in lines
    assert read_config(tmp_path / "run")["skipped"] == {}
    result = run_test(tmp_path, "--data_root", "data", "--run", "run")
    assert result.status == 2 and "error: 5 errors in data:" in result.errors
    [text] = advised(done, "test.py")
    assert text.endswith(" --skip_bad")
    result = follow(tmp_path, text)
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "run/results.json").read_text())["test_files"]["bottle"]["count"] == 1


def test_a_run_goes_on_when_its_test_files_are_mended(tmp_path):
    data = make_mvtec(tmp_path / "data", train=4)
    shutil.copytree(data, tmp_path / "sound")
    break_test(data)
    options = ("--data_root", "data", *RD4AD, "--output", "run")
    assert run_train(tmp_path, *options).status == 0
    before = listing(tmp_path / "run/checkpoints")
    shutil.rmtree(data)
    (tmp_path / "sound").rename(data)
    done = say_done(run_train(tmp_path, *options))
    assert "--skip_bad" not in done and listing(tmp_path / "run/checkpoints") == before


@pytest.mark.parametrize("flags", [("--eval_every", 1), ("--seeds", 0, 1)])
def test_training_that_needs_the_test_set_refuses(tmp_path, flags):
    data = make_mvtec(tmp_path / "data", train=4)
    break_test(data)
    result = run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run", *flags)
    assert result.status == 2 and result.errors == ["error: 5 errors in data:"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["train/good/002.png", "test/crack/001.png"])
def test_errors_that_training_must_not_have_are_listed_with_all_others(tmp_path, name):
    """An unreadable training image; a test image that is a copy of one."""
    data = make_mvtec(tmp_path / "data", train=4)
    break_test(data)
    if name.startswith("train"):
        cut(data / "bottle" / name)
    else:
        shutil.copy(data / "bottle/train/good/000.png", data / "bottle" / name)
    result = run_train(tmp_path, "--data_root", "data", *RD4AD, "--output", "run")
    assert result.status == 2 and result.errors == ["error: 6 errors in data:"]
    assert any(f"data/bottle/{name}" in line for line in lines_of(result))


def test_a_program_in_a_process_of_its_own_says_the_same(tmp_path):
    data = make_mvtec(tmp_path / "data", train=4)
    cut(data / "bottle/ground_truth/hole/000_mask.png")
    result = run_process(tmp_path, "train.py", "--data_root", "data", *RD4AD, "--output", "run")
    assert "--skip_bad" in say_done(result)
    assert result.err.count("warning, 1 time: mask cannot be read") == 1
