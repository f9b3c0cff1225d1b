"""scripts/compare.py: its tables and files with figures worked out by hand, and the program as a user calls it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from tests.support.commands import ROOT, run_compare, run_process
from tests.support.comparison_cases import HEADLINE, scored, seeds_of, two_runs, write_run
from utils.metrics import METRICS
from utils.results.comparison import Run, compare
from utils.results.comparison_report import format_text, write_csv, write_json, write_markdown, writer_for
from utils.system.errors import UsageError


def test_table_as_text():
    runs = two_runs()
    runs.append(Run("one", [scored(0, {"tile": {"image_auroc": 0.54996}, "wood": {}})]))
    rows = [re.split(" {2,}", line) for line in format_text(compare(runs, HEADLINE[:1])).splitlines()[:6]]
    assert rows[0] == [
        "Category", "Metric", "base", "ours", "one", "ours: difference", "spread", "beyond", "p", "one: difference",
        "spread", "beyond", "p",
    ]
    assert rows[2] == ["tile", "I-AUROC", "55.00 ± 7.07", "75.00 ± 7.07", "55.00", "+20.00", "10.00", "yes", "0.106",
                       "+0.00", "–", "–", "–"]
    p = f"{ttest_ind([0.95, 0.93], [0.9, 1.0], equal_var=False).pvalue:.3f}"
    assert rows[3][:9] == ["wood", "I-AUROC", "95.00 ± 7.07", "94.00 ± 1.41", "–", "-1.00", "7.21", "no", p]
    assert rows[3][9:] == ["–"] * 4
    assert {rows[1][0], rows[4][0]} == {"-" * len(rows[1][0])}
    assert rows[5][:2] == ["Mean", "I-AUROC"]
    assert rows[5][2:5] == ["55.00 ± 7.07", "75.00 ± 7.07", "55.00"]  # of tile alone: the third run has no wood


def test_text_below_the_table():
    runs = [Run("a", [scored(0, gains={"tile": 0.0625})]), Run("b", [scored(0, sha256={"tile": "x"})])]
    text = format_text(compare(runs, HEADLINE))
    below = text.splitlines()[text.splitlines().index("WARNING: not the same test images: tile.") + 1 :]
    assert below[0].endswith("differences to a in points.")
    assert "√(std² of one + std² of the other)" in below[1]
    assert "Welch's t-test" in below[2]
    assert below[3].startswith("Not a result: ")
    assert [line.split() for line in below[4:]] == [["Category", "a", "b"], ["tile", "6.25", "–"]]


def test_tiny_p_and_no_negative_zero():
    values = {"a": (0.5, 0.501), "b": (0.9, 0.901), "c": (0.50046,)}
    runs = [Run(name, seeds_of("aupro", *found)) for name, found in values.items()]
    cells = re.split(" {2,}", format_text(compare(runs, ["aupro"])).splitlines()[2])
    assert cells[5:10] == ["+40.00", "0.10", "yes", "<0.001", "+0.00"]


def test_names_cannot_break_out_of_markdown(tmp_path):
    """Names of runs and categories: of tags, entities, links, code and cells nothing is left that means something."""
    evil = "<script>alert(1)</script> &lt;b&gt; [a](javascript:b) `c` | \"d\"\n# e"
    rows = {evil: {"image_auroc": 0.5}}
    settings = {"backbone": evil}
    runs = [
        Run(evil, [scored(0, rows, settings=settings, gains={evil: 0.125})]),
        Run("other", [scored(0, rows | {"more": {}}, sha256={evil: "x"}, gains={evil: 0.25})]),
    ]
    write_markdown(tmp_path / "c.md", compare(runs, HEADLINE))
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    shown = r"\<script\>alert(1)\</script\> \&lt;b\&gt; \[a\](javascript:b) \`c\` \| " + '"d" # e'
    assert text.count(shown) >= 8  # heads, rows of three tables, three notes, the definitions
    rest = text.replace(shown, "")
    assert not re.search(r"(?<!\\)[<>&`\[]", rest)
    assert "script" not in rest
    table = text.split("\n\n")[0].splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"(?<!\\)\|", table[0]))}


def test_csv_file(tmp_path):
    runs = two_runs()
    runs[0].seeds[0]["published_protocol"] = runs[0].seeds[1]["published_protocol"] = {
        "tile": {"gain": {"image_auroc": 0.25}}
    }
    write_csv(tmp_path / "c.csv", compare(runs, HEADLINE))
    header, *lines = csv.reader((tmp_path / "c.csv").read_text(encoding="utf-8").splitlines())
    assert header[:6] == ["category", "metric", "run", "seeds", "mean [0..1]", "std"]
    assert header[6:10] == ["difference to the first run", "spread", "beyond spread", "p"]
    assert header[10:] == ["best on test minus result (not a result)", "std of best on test minus result"]
    assert [line[:3] for line in lines] == [
        *([c, m, run] for c in ("tile", "wood") for m in HEADLINE for run in ("base", "ours")),
        *(["Mean", m, run] for m in HEADLINE[:2] for run in ("base", "ours")),
    ]
    by_key = {tuple(line[:3]): line[3:] for line in lines}
    base, ours = (by_key["tile", "image_auroc", run] for run in ("base", "ours"))
    assert [float(value) for value in base[:3]] == pytest.approx([2, 0.55, 0.1 / 2**0.5])
    assert base[3:] == ["", "", "", "", "0.25", "0.0"]
    assert [float(value) for value in (*ours[:5], ours[6])] == pytest.approx(
        [2, 0.75, 0.1 / 2**0.5, 0.2, 0.1, 1 - 8**0.5 / 10**0.5], rel=1e-12
    )
    assert (ours[5], ours[7:]) == ("True", ["", ""])
    assert by_key["tile", "pixel_auroc", "ours"][3:7] == [str(0.95 - 0.9), "0.0", "True", ""]
    assert by_key["tile", "aupro", "ours"] == ["2", *[""] * 8]
    assert by_key["tile", "aupro", "base"] == ["2", "0.5", "0.0", *[""] * 6]


def test_json_file(tmp_path):
    runs = two_runs()
    runs[1].seeds[1]["published_protocol"] = runs[1].seeds[0]["published_protocol"] = {
        "wood": {"gain": {"image_auroc": 0.125}}
    }
    comparison = compare(runs, HEADLINE)
    write_json(tmp_path / "c.json", comparison)
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert content["seeds"] == {"base": 2, "ours": 2}
    assert list(content["categories"]) == ["tile", "wood"]
    tile = content["categories"]["tile"]["image_auroc"]
    assert tile["runs"]["base"] == {"values": [0.5, 0.6], "mean": 0.55, "std": pytest.approx(0.1 / 2**0.5)}
    expected = {"difference": 0.2, "spread": 0.1, "beyond_spread": True, "p": 1 - 8**0.5 / 10**0.5}
    assert tile["differences"] == {"ours": pytest.approx(expected, rel=1e-12)}
    assert content["categories"]["tile"]["pixel_auroc"]["differences"]["ours"]["p"] is None
    assert content["categories"]["tile"]["aupro"] == {
        "runs": {"base": {"values": [0.5, 0.5], "mean": 0.5, "std": 0.0}}, "differences": {}
    }
    assert content["categories"]["wood"]["aupro"] == {"runs": {}, "differences": {}}
    assert content["mean"]["image_auroc"]["runs"]["ours"]["mean"] == pytest.approx(0.845)
    assert content["mean"].keys() == {"image_auroc", "pixel_auroc"}
    gain = {"ours": {"values": [0.125, 0.125], "mean": 0.125, "std": 0.0}}
    assert content["best_on_test_gain"] == {"categories": {"wood": gain}, "mean": {}}  # not of both runs
    assert content["notes"] == list(comparison.notes) == ["Mean P-AUROC is over 1 of 2 categories."]


def test_json_file_has_the_mean_gain(tmp_path):
    rows = {"tile": {"image_auroc": 0.5}, "wood": {"image_auroc": 0.5}}
    runs = [Run(name, [scored(0, rows, gains={"tile": 0.125, "wood": 0.25})]) for name in "ab"]
    write_json(tmp_path / "c.json", compare(runs, HEADLINE))
    gains = json.loads((tmp_path / "c.json").read_text())["best_on_test_gain"]
    assert gains["mean"] == {name: {"values": [0.1875], "mean": 0.1875, "std": None} for name in "ab"}
    assert gains["categories"].keys() == {"tile", "wood"}


def test_markdown_file(tmp_path):
    other = scored(0, gains={"tile": 0.2}, sha256={"tile": ""})
    runs = [Run("a|b", [scored(0, gains={"tile": 0.1})]), Run("c", [other])]
    write_markdown(tmp_path / "c.md", compare(runs, ["image_auroc"]))
    table, listed, definitions, gains, gain_table = (tmp_path / "c.md").read_text(encoding="utf-8").split("\n\n")
    assert table.splitlines() == [
        "| Category | Metric | a\\|b | c | c: difference | spread | beyond | p |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        "| tile | I-AUROC | 50.00 | 50.00 | +0.00 | – | – | – |",
        "| Mean | I-AUROC | 50.00 | 50.00 | +0.00 | – | – | – |",
    ]
    assert listed == "- WARNING: not the same test images: tile."
    assert "Welch" in definitions
    assert gains.startswith("Not a result: ")
    assert gain_table.splitlines() == [
        "| Category | a\\|b | c |", "|---|---:|---:|", "| tile | 10.00 | 20.00 |", "| Mean | 10.00 | 20.00 |"
    ]


def test_suffix_chooses_the_writer():
    found = [writer_for(Path(name)) for name in ("a.md", "b.CSV", "c.d.json")]
    assert found == [write_markdown, write_csv, write_json]
    for name in ("table.html", "md", "x.json.txt"):
        with pytest.raises(UsageError, match=rf"`output` {name}: a file name must end in \.md, \.csv, \.json"):
            writer_for(Path(name))


# The program


def test_program(tmp_path):
    rows = {"tile": dict.fromkeys(METRICS, 0.5)}
    for name, lr in (("a", 0.005), ("b", 0.001)):
        write_run(tmp_path / name, *(scored(seed, rows, settings={"lr": lr}) for seed in range(2)))
    outputs = ["new/c.md", "c.csv", "c.json", "d.csv"]
    done = run_process(tmp_path, "scripts/compare.py", "a", "b", "--output", *outputs)
    assert done.status == 0, done.err
    assert "\nSetting lr: 0.005 (a); 0.001 (b).\n" in done.out
    assert re.findall("^(?:tile|Mean) +([^ ]+) +(.*?)  ", done.out, re.M) == 2 * [
        (name, "50.00 ± 0.00") for name in ("I-AUROC", "P-AUROC", "PRO")
    ]
    assert all((tmp_path / name).stat().st_size for name in outputs)
    assert (tmp_path / "d.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert json.loads((tmp_path / "c.json").read_text())["categories"]["tile"].keys() == set(HEADLINE)


def test_choice_of_metrics(tmp_path):
    write_run(tmp_path / "a", scored(0, {"tile": dict.fromkeys(METRICS, 0.5)}))
    write_run(tmp_path / "b", scored(0, {"tile": dict.fromkeys(METRICS, 0.75)}))
    for wanted, expected in (("all", list(METRICS)), ("aupro image_ap aupro", ["aupro", "image_ap"])):
        done = run_compare(tmp_path, "a", "b", "--metrics", *wanted.split(), "--output", "c.json")
        assert done.status == 0, done.err
        assert list(json.loads((tmp_path / "c.json").read_text())["categories"]["tile"]) == expected
        assert done.out.count("\ntile ") == len(expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("a", "give at least two run folders"),
        ("a b/../a", "each run only once: a and b/../a"),
        ("a b --output c.csv c.txt", "--output c.txt: a file name must end in .md, .csv, .json"),
        ("a b --metrics auroc", "'auroc'"),
        ("a absent", "there is no run folder absent"),
        ("a b --output c.md", "b has no results.json; write it with: python test.py --data_root DIR --run b"),
        ("a b --metric all", "--metric"),
    ],
)
def test_wrong_calls(tmp_path, arguments, expected):
    write_run(tmp_path / "a", scored())
    (tmp_path / "b").mkdir()
    done = run_compare(tmp_path, *arguments.split())
    assert done.status == 2
    assert len(done.errors) == 1
    assert expected in done.errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_help_is_quick(tmp_path):
    """Neither torch nor SciPy is imported for it: a process that must not have them prints it."""
    for name in ("torch", "scipy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not for the help')")
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", run, ROOT / "scripts/compare.py", "--help"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for flag in ("RUN", "--metrics", "--output"):
        assert re.search(rf"{flag}\b[^\n]*?(\n\s+| {{2,}})[a-z]", done.stdout.partition("positional")[2])
