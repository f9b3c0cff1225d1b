"""Flags in a file: what train.py --config reads, which flag wins, and what is refused."""

from __future__ import annotations

import json

import pytest

from tests.support.commands import OWN, run_train
from tests.support.trees import make_folder
from train import make_parser
from utils.runs.settings import read_config


def flags(path, *words: str) -> dict:
    return vars(make_parser().parse_args(["--config", str(path), *words]))


def test_names_and_values_become_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# a try\ndata_root: my data\npreset: own\nimage-size: 128\nlr: 1e-3\ncategories: [a b, c]\ncompile: true\n"
        "deterministic: false\nwhite_level: null\ncache_features: off\nbad: []\ngood: -x\nfar: 0.02\n"
    )
    found = flags(path, "--lr", "0.5", "--far", "auto")
    expected = {
        "data_root": "my data", "backbone": "efficientnet_lite0", "image_size": 128, "lr": 0.5, "compile": True,
        "categories": ["a b", "c"], "deterministic": False, "white_level": None, "cache_features": "off", "bad": [],
        "good": ["-x"], "far": None, "recipe": "robust",
    }
    assert {name: found[name] for name in expected} | {"data_root": str(found["data_root"])} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_root: x\nepochs_stag1: 3", "; did you mean epochs_stage1?"),
        ("qwertz: 3", "'qwertz' is no flag of"),
        ("config: y.yaml", "'config' is no flag of"),
        ("- a\n- b", "holds no lines of `name: value`"),
        ("data_root: [", "is no YAML file"),
        ("lr: {a: 1}", "lr: {'a': 1} is no value of --lr"),
        ("lr: true", "lr: True is no value of --lr"),
        ("compile: 3", "compile: 3 is no value of --compile"),
        ("data_root: x\nimage_size: 100", "argument --image_size: 100 is not a multiple of 32"),
        (None, "No such file"),
    ],
)
def test_what_is_no_file_of_flags_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit):
        flags(path)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_runs_settings_make_the_same_run(tmp_path):
    root = make_folder(tmp_path / "data", ["widget"])
    first = run_train(tmp_path, "--data_root", root, *OWN, "--output", "first")
    assert first.status == 0, first.err
    second = run_train(tmp_path, "--config", "first/config.json", "--output", "second")
    assert second.status == 0, second.err
    before, after = (read_config(tmp_path / name) for name in ("first", "second"))
    moving = ("command", "started", "code", "environment")
    assert {k: v for k, v in before.items() if k not in moving} == {k: v for k, v in after.items() if k not in moving}
    rows = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("first", "second")]
    assert rows[0] == rows[1]
    again = run_train(tmp_path, "--resume", "second")
    assert again.status == 0, again.err
