"""Names of folders and files that hold line breaks, escape codes and marks of direction: no program prints them raw."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from datasets.names import printable
from datasets.problems import warning
from tests.support.commands import (
    OWN,
    run_calibrate,
    run_check,
    run_compare,
    run_export,
    run_predict,
    run_report,
    run_test,
    run_train,
)
from tests.support.trees import defect_image, good_image, write_image

pytestmark = pytest.mark.usefixtures("one_thread")
PART = "=part"  # categories of other names are refused
DEFECT = "cr\nforged line\u202eack"
IMAGE = "=1\nforged line\x9b\x7f\udcff"
BARS = re.compile("\x1b\\[A")  # how tqdm goes up a line
FORGED = re.compile(r"^\W*(error: )?forged", re.MULTILINE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A working folder in which everything was trained and scored whose names can be hostile, and what was printed."""
    cwd = tmp_path_factory.mktemp("hostile")
    rng, part = np.random.default_rng(0), cwd / "da\nforged root\x1bta" / PART
    for number in range(10):
        write_image(part / f"train/good/{number}{IMAGE}.png", good_image(rng, 64))
    for number in range(2):
        write_image(part / f"test/good/{number}{IMAGE}.png", good_image(rng, 64))
        pixels, mask = defect_image(rng, 64)
        write_image(part / f"test/{DEFECT}/{number}{IMAGE}.png", pixels)
        write_image(part / f"ground_truth/{DEFECT}/{number}{IMAGE}_mask.png", mask)
    (part / f"test/good/broken{IMAGE}.png").write_text("no image")
    (part / f"train/good/broken{IMAGE}.png").write_text("no image")
    return cwd, part


@pytest.fixture(scope="module")
def said(hostile):
    cwd, part = hostile
    root, run, other = part.parent, "ru\nforged run\x1bn", "oth\x1ber"
    photos = [part / "test/good", part / f"test/{DEFECT}"]
    flags = ("--data_root", root, *OWN, "--calibration", 0.4, "--far", 0.25)
    results = {
        "refused": run_train(cwd, *flags, "--output", run),
        "train": run_train(cwd, *flags, "--output", run, "--skip_bad"),
        "other": run_train(cwd, "--data_root", root, *OWN, "--seed", 1, "--output", other, "--skip_bad"),
        "again": run_train(cwd, *flags, "--output", run, "--skip_bad"),
        "check": run_check(cwd, "--data_root", root),
        "test": run_test(cwd, "--data_root", root, "--run", run, "--skip_bad", "--save_maps", "--mvtec_maps", "ma\nps"),
        "test other": run_test(cwd, "--data_root", root, "--run", other, "--skip_bad"),
        "predict": run_predict(cwd, run, *photos),
        "csv": run_predict(cwd, run, *photos, "--output", "o\nut.csv", "--save_maps", "heat\nmaps"),
        "jsonl": run_predict(cwd, run, *photos, "--output", "out.jsonl"),
        "absent": run_predict(cwd, run, "no\nforged file"),
        "category": run_predict(cwd, run, *photos, "--category", "no\nforged category"),
        "report": run_report(cwd, run, "--skip_bad"),
        "compare": run_compare(cwd, run, other, "--output", "a.md", "a.csv", "a.json"),
        "calibrate": run_calibrate(cwd, run, "--far", 0.3),
        "export": run_export(cwd, run, "--category", PART, "--format", "torchscript", "--output", "mo\nforged.pt"),
    }
    return cwd, results


STATUS = {"refused": 2, "check": 1, "predict": 1, "csv": 1, "jsonl": 1, "absent": 1, "category": 2}


def is_clean(text: str) -> bool:
    return all(c.isprintable() or c in "\n\r" for c in text) and not FORGED.search(text.replace("\r", "\n"))


def test_nothing_that_is_printed_is_raw(said):
    _, results = said
    for name, result in results.items():
        assert result.status == STATUS.get(name, 0), (name, result.err)
        assert is_clean(result.out) and is_clean(BARS.sub("", result.err)), name
        assert len(result.errors) <= 2, name
    assert r"forged run\x1bn" in results["test"].out
    assert r"\x9b" in results["predict"].out


def test_no_file_of_text_is_raw(said):
    cwd, _ = said
    written = [path for path in cwd.rglob("*") if path.suffix in (".csv", ".json", ".jsonl", ".md", ".txt")]
    assert {"config.json", "log.txt", "metrics.jsonl", "results.json", "results.csv", "out.jsonl", "a.md"} <= {
        path.name for path in written
    }
    for path in written:
        assert is_clean(path.read_text(encoding="utf-8")), path
    pages = [path.read_text(encoding="utf-8") for path in cwd.rglob("report.html")]
    assert len(pages) == 1 and r"forged run\x1bn" in pages[0]
    assert all(c.isprintable() or c == "\n" for c in pages[0])
    shown = json.loads(re.search(r'<script type="application/json">(.*?)</script>', pages[0]).group(1))["images"]
    assert shown and all(image["name"].isprintable() for image in shown)


def test_names_in_json_are_those_of_the_folders(said):
    cwd, _ = said
    [results] = [json.loads(path.read_text()) for path in cwd.glob("ru*/results.json")]
    assert list(results["categories"]) == [PART]
    records = [json.loads(line) for line in (cwd / "out.jsonl").read_text().splitlines()]
    assert len(records) == 5 and all(record["path"].isprintable() for record in records)


def test_no_cell_of_a_table_is_a_formula(said, tmp_path):
    cwd, _ = said
    for path in cwd.rglob("*.csv"):
        rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
        assert len(rows) > 1 and all(cell[:1] not in ("=", "+", "@", "\t", "\r") for row in rows for cell in row)
    for number, start in enumerate("=+-@"):
        write_image(tmp_path / f"{start}{number}.png", np.zeros((32, 32, 3), np.uint8))
    [run] = cwd.glob("ru*")
    names = [f"./{start}{number}.png" for number, start in enumerate("=+-@")]
    assert run_predict(tmp_path, run, *names, "--output", "out.csv").status == 0
    paths = [row["path"] for row in csv.DictReader((tmp_path / "out.csv").open(newline=""))]
    assert sorted(paths) == ["'+1.png", "'-2.png", "'=0.png", "'@3.png"]


@pytest.mark.parametrize("name", ["pa\nerror: forged\x1b[2Jrt", "pa\udcffrt"])
def test_a_category_of_such_a_name_is_refused_in_one_line(tmp_path, name):
    for split in ("train", "test"):
        write_image(tmp_path / "data" / name / split / "good/a.png", np.zeros((32, 32, 3), np.uint8))
    named = f"no category can be called {printable(name)!r}, as a folder in data is: it holds characters that cannot"
    for result in (run_check(tmp_path, "--data_root", "data"), run_train(tmp_path, "--data_root", "data", *OWN)):
        assert result.status == 2 and len(result.errors) == 1 and named in result.errors[0] and is_clean(result.err)
    assert not (tmp_path / "runs").exists()


def test_arguments_that_no_program_takes_are_not_raw(tmp_path):
    """As a pattern of the shell gives file names to flags that take one value."""
    name = "ph\nforged line\x1b[2Joto.png"
    for run_program, flag in ((run_train, "--data_root"), (run_test, "--data_root"), (run_check, "--cache_dir")):
        result = run_program(tmp_path, flag, "a", "--data_root", "a", name)
        assert result.status == 2 and "unrecognized arguments: ph" in result.err and is_clean(result.err)


def test_a_problem_is_one_line(tmp_path):
    problem = warning("mask\nhas", tmp_path / "a\nb", details="c\x1bd")
    assert str(problem) == rf"mask\nhas: {tmp_path}/a\nb (c\x1bd)"
