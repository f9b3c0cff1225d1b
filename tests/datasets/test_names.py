"""Names that reach a screen or a table hold nothing that cannot be seen."""

import csv
import io
import json
import pickle
from pathlib import Path

import pytest

from datasets import open_dataset
from datasets.base import DataError
from datasets.names import csv_line, json_text, misfit_of, printable
from tests.support.commands import TINY, run_check, run_convert, run_predict, run_test, run_train
from tests.support.trees import make_folder
from train import make_parser
from utils.sweep.plan import make_plan
from utils.system.errors import UsageError

SETTINGS = vars(make_parser().parse_args(["--data_root", "."]))  # of train.py, by default


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("part 1/ä_部品.png", "part 1/ä_部品.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("a\x1b[2J\x9b1m\x7f", r"a\x1b[2J\x9b1m\x7f"),
        ("a\u2028b\u202egnp.exe\u200b", r"a\u2028b\u202egnp.exe\u200b"),
        ("bytes \udcff", r"bytes \udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(name, shown):
    assert printable(name) == printable(Path(name)) == shown
    assert shown.isprintable()


def test_an_error_is_the_lines_that_it_was_given():
    error = DataError("2 errors:", "a\nb.png", "\x1b[2J")
    assert str(error) == "2 errors:\na\\nb.png\n\\x1b[2J"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(DataError("one\nline")) == "one\\nline"


def test_cells_of_csv_are_text():
    line = csv_line(["=1+1", "-2", "+3", "@x", "\t=1", "\r", -2.5, None, 'a,"b"', "a\nb", "a=b"])
    assert line == "'=1+1,'-2,'+3,'@x,'\\t=1,'\\r,-2.5,,\"a,\"\"b\"\"\",a\\nb,a=b\n"
    assert next(csv.reader(io.StringIO(line)))[8] == 'a,"b"'


def test_json_keeps_names_in_its_own_escapes():
    content = {"a\n\x7f\x9b\u202e\udcff\U000e0041": ["\u00e4", 1.5]}
    text = json_text(content, indent=1)
    assert json.loads(text) == content and all(c.isprintable() or c == "\n" for c in text)
    assert "\u00e4" in text and "\\u009b" in text and "\\udb40\\udc41" in text


# Categories

REFUSED = ["teacher.pt", "Teacher.PT", "Mean", "line\nbreak", "escape\x1b[2J", "back\\slash", "hidden\u200bspace"]
TAKEN = ["seed0", "Part", "part", "-x", "=1+1", "a b", "mean", "x" * 255, "ä", "stage1.pt", "checkpoints", "[a]*?"]


@pytest.mark.parametrize("name", [*REFUSED, "", ".", "..", "a/b"])
def test_names_that_no_category_can_have(name):
    assert misfit_of(name)
    assert not any(misfit_of(name) for name in TAKEN)


@pytest.mark.parametrize("name", REFUSED)
def test_a_category_that_cannot_be_is_refused_before_anything_is_done(tmp_path, name):
    root = make_folder(tmp_path / "data", [name, "other"])
    with pytest.raises(DataError, match="no category can be called") as caught:
        open_dataset(root)
    assert repr(printable(name)) in str(caught.value) and str(caught.value).isprintable()
    assert open_dataset(root, categories=["other"]).categories == ("other",)
    for program in (run_train, run_check):
        result = program(tmp_path, "--data_root", root)
        assert (result.status, len(result.errors)) == (2, 1) and "no category can be called" in result.errors[0]
    with pytest.raises(DataError, match="no category can be called"):
        make_plan([root], None, ["aand"], [0], SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("name", ["..", "a/b", "", *REFUSED])
def test_a_converted_category_is_called_as_one_can_be(tmp_path, name):
    files = [tmp_path / "1.pth", tmp_path / "2.pth"]
    arguments = ("--stage1", files[0], "--stage2", files[1], "--dataset", "mvtec", "--data_root", tmp_path)
    result = run_convert(tmp_path, "from_official", *arguments, f"--category={name}", "--run", "run")
    assert (result.status, len(result.errors)) == (2, 1) and result.errors[0].startswith("error: --category ")
    assert not list(tmp_path.iterdir())


def test_a_sweep_names_its_data_sets(tmp_path):
    root = make_folder(tmp_path / "a\nb")
    with pytest.raises(UsageError, match=r"no data set can be called 'a\\\\nb'"):
        make_plan([root], None, ["aand"], [0], SETTINGS)


def test_unusual_categories_are_trained_scored_and_used(tmp_path):
    root = make_folder(tmp_path / "data", TAKEN, train=2, good=1, defects={"hole": 1}, size=16)
    options = ("--data_root", root, *TINY, "--method", "rd4ad", "--epochs_stage2", 1, "--output", "run")
    assert run_train(tmp_path, *options).status == 0
    result = run_test(tmp_path, "--data_root", root, "--run", "run")
    assert result.status == 0, result.err
    rows = [line.rsplit(maxsplit=3)[0].strip() for line in result.out.splitlines()[3 : 3 + len(TAKEN)]]
    assert sorted(rows) == sorted(TAKEN)
    for name in TAKEN:
        image = root / name / "test/hole/000.png"
        assert run_predict(tmp_path, "run", image, f"--category={name}").status == 0
    plan = make_plan([root], ["-x"], ["rd4ad"], [0], SETTINGS)
    [train, _] = plan.tasks[0].commands(tmp_path / "out")
    assert make_parser().parse_args(train[1:]).categories == ["-x"]
