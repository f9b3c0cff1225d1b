"""Comparing runs: figures worked out by hand, what is said of runs that are not comparable, and broken runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from tests.support.comparison_cases import HEADLINE, entry_of, scored, seeds_of, two_runs, write_run
from utils.results.comparison import Difference, Run, compare, read_runs, short_names
from utils.system.errors import RunError

# Figures


def test_means_deviations_and_differences():
    """Of two values the sample standard deviation is their distance / sqrt(2). Welch's t of 0.2 / sqrt(0.005 / 2 +
    0.005 / 2) has two degrees of freedom here, where p = 1 - t / sqrt(t^2 + 2)."""
    comparison = compare(two_runs(), HEADLINE)
    assert (comparison.names, comparison.num_seeds) == (["base", "ours"], [2, 2])
    tile = entry_of(comparison, "tile", "image_auroc")
    assert tile.statistics == [(pytest.approx(0.55), pytest.approx(0.1 / 2**0.5)), (0.75, pytest.approx(0.1 / 2**0.5))]
    [difference] = tile.differences
    assert difference.difference == pytest.approx(0.2)
    assert difference.spread == pytest.approx(0.1)
    assert difference.beyond_spread is True
    assert difference.p == pytest.approx(1 - 8**0.5 / 10**0.5)  # 0.1056


def test_mean_row_is_over_categories_seed_by_seed():
    """base: (0.5 + 0.9) / 2 and (0.6 + 1.0) / 2; ours: (0.7 + 0.95) / 2 and (0.8 + 0.93) / 2."""
    comparison = compare(two_runs(), HEADLINE)
    mean = entry_of(comparison, "Mean", "image_auroc")
    assert [list(values) for values in mean.values] == [pytest.approx([0.7, 0.8]), pytest.approx([0.825, 0.865])]
    assert mean.differences[0].difference == pytest.approx(0.095)
    assert mean.differences[0].spread == pytest.approx((0.1**2 / 2 + 0.04**2 / 2) ** 0.5)
    assert [entry.metric for entry in comparison.means] == ["image_auroc", "pixel_auroc"]


def test_mean_is_over_categories_that_every_run_has_the_metric_for():
    rows = [{"a": {"aupro": 0.5}, "b": {"aupro": 0.75}}, {"a": {"aupro": 0.25}, "b": {}}]
    comparison = compare([Run(name, [scored(0, row)]) for name, row in zip("xy", rows, strict=True)], ["aupro"])
    assert entry_of(comparison, "Mean", "aupro").values == [[0.5], [0.25]]
    assert "Mean PRO is over 1 of 2 categories." in comparison.notes
    assert entry_of(comparison, "b", "aupro").values == [[0.75], None]
    assert entry_of(comparison, "b", "aupro").differences == [None]


@pytest.mark.filterwarnings("ignore:Precision loss")  # of SciPy where one side is constant
@pytest.mark.parametrize(
    ("first", "other"),
    [([0.7, 0.72, 0.71], [0.69, 0.74, 0.8]), ([0.1, 0.9], [0.3, 0.2, 0.5, 0.9]), ([0.75] * 3, [0.5, 0.51, 0.53])],
)
def test_p_is_that_of_welch(first, other):
    difference = Difference.between(first, other)
    assert difference.p == pytest.approx(ttest_ind(other, first, equal_var=False).pvalue, rel=1e-9)
    assert difference.p != pytest.approx(ttest_ind(other, first).pvalue, rel=1e-2)  # Student's is another


@pytest.mark.parametrize(("first", "other"), [([0.5], [0.6]), ([0.5], [0.6, 0.7]), ([0.5, 0.6], [0.7])])
def test_single_seeds_have_no_spread(first, other):
    difference = Difference.between(first, other)
    assert difference.difference == pytest.approx(sum(other) / len(other) - sum(first) / len(first))
    assert (difference.spread, difference.beyond_spread, difference.p) == (None, None, None)


def test_seeds_that_agree_have_no_p():
    assert Difference.between([0.5] * 3, [0.75] * 2) == Difference(0.25, 0.0, True, None)
    assert Difference.between([0.5] * 3, [0.75] * 2).beyond_spread is True
    assert Difference.between([0.5] * 2, [0.5] * 2).beyond_spread is False
    assert Difference.between([0.5, 0.7], [0.5, 0.7]).beyond_spread is False
    assert Difference.between([0.8, 0.9], [0.3, 0.4]).beyond_spread is True  # less is a difference too


def test_differences_are_to_the_first_run():
    runs = [Run(name, seeds_of("aupro", value)) for name, value in zip("abc", (0.5, 0.75, 0.25), strict=True)]
    assert [d.difference for d in compare(runs, ["aupro"]).entries[0].differences] == [0.25, -0.25]
    assert [d.difference for d in compare(runs[::-1], ["aupro"]).entries[0].differences] == [0.5, 0.25]


def test_gains_of_the_published_protocol():
    a = [scored(seed, gains={"tile": gain}) for seed, gain in ((0, 0.0), (1, 0.1))]
    b = [scored(0, gains={"tile": 0.05})]
    comparison = compare([Run("a", a), Run("b", b), Run("c", [scored()])], HEADLINE)
    [tile] = comparison.gains
    assert tile.statistics == [(pytest.approx(0.05), pytest.approx(0.1 / 2**0.5)), (0.05, None), None]
    assert comparison.mean_gain == []  # not every run has it
    assert compare([Run("a", a), Run("b", b)], HEADLINE).mean_gain[0].statistics[1] == (0.05, None)
    assert compare([Run("a", a), Run("b", b)], ["aupro"]).gains == []  # of another metric than those shown
    assert compare([Run("c", [scored()])] * 2, HEADLINE).gains == []
    half = [scored(0, gains={"tile": 0.5}), scored(1)]
    assert compare([Run("half", half), Run("b", b)], HEADLINE).gains[0].values == [None, [0.05]]


# What the runs differ in


def notes(*runs: list[dict], names="abc") -> list[str]:
    return list(compare([Run(name, seeds) for name, seeds in zip(names, runs, strict=False)], ["image_auroc"]).notes)


def test_like_runs_need_no_notes():
    free = {"workers": 8, "device": "cuda", "eval_every": 5}
    assert notes([scored(0), scored(1)], [scored(2, settings=free), scored(3)]) == []


def test_other_test_images_are_a_warning():
    rows = {"tile": {"image_auroc": 0.5}, "wood": {"image_auroc": 0.5}}
    found = notes([scored(0, rows)], [scored(0, rows, sha256={"wood": "other"}, settings={"lr": 1})])
    assert found[0] == "WARNING: not the same test images: wood."  # before all else
    assert notes([scored(0, rows), scored(1, rows, sha256={"tile": "x"})], [scored(0, rows)]) == [
        "WARNING: not the same test images: tile.", "Seed: 0 and 1 (a); 0 (b)."
    ]


def test_settings_that_differ():
    assert notes([scored(0)], [scored(0, settings={"method": "rd4ad", "new": None, "lr": 0.001})], [scored(0)]) == [
        "Setting method: aand (a, c); rd4ad (b).", "Setting lr: 0.005 (a, c); 0.001 (b)."
    ]
    assert notes([scored(0, settings={"only": 3})], [scored(0)]) == ["Setting only: 3 (a); None (b)."]
    assert notes([scored(0, settings={"tiles": 1, "roi": None})], [scored(0)]) == []  # from before there were these


def test_categories_that_not_all_have():
    one, two = {"image_auroc": 0.5}, {"tile": {"image_auroc": 0.5}, "wood": {"image_auroc": 0.75}}
    runs = [Run("a", [scored(0, two)]), Run("b", [scored(0, {"wood": one, "mesh": one}), scored(1, two)])]
    comparison = compare(runs, ["image_auroc"])
    assert [entry.category for entry in comparison.entries] == ["wood"]
    assert entry_of(comparison, "Mean", "image_auroc").values == [[0.75], [0.5, 0.75]]
    assert "Only common categories are compared: a also has tile; b also has mesh, tile." in comparison.notes
    seeds = [scored(0, two), scored(1, {"wood": one})]  # a category that the second seed lacks
    comparison = compare([Run("a", [scored(0, two)]), Run("b", seeds)], ["image_auroc"])
    assert [(entry.category, entry.values) for entry in comparison.entries] == [("wood", [[0.75], [0.75, 0.5]])]
    with pytest.raises(RunError, match="no category in common: a has tile; b has wood"):
        notes([scored()], [scored(0, {"wood": one})])
    with pytest.raises(RunError, match="no category in common: a has none for all seeds; b has tile"):
        notes([scored(0), scored(1, {"wood": one})], [scored()])


def test_versions_and_protocols_that_differ():
    def made(commit, torch, changed=False):
        return {"code": {"commit": commit * 5, "changed": changed}, "environment": {"torch": torch}}

    assert notes([scored(training=made("abcd", "2.4.0"))], [scored(training=made("abcd", "2.5.0", True))]) == [
        "Trained with: code abcdabc, torch 2.4.0 (a); code abcdabc with changes, torch 2.5.0 (b)."
    ]
    assert notes([scored(testing={})], [scored(testing=made("abcd", "2.5.0"))]) == [
        "Scored with: code unknown, torch unknown (a); code abcdabc, torch 2.5.0 (b)."
    ]
    mixed = [scored(0, training=made("abcd", "2.4.0")), scored(1)]
    assert notes(mixed, mixed[::-1]) == []
    assert notes([scored()], [scored(protocol={"epoch": "best"})]) == [
        'Not scored in the same way: see "protocol" in results.json.'
    ]


# Reading


def test_runs_of_one_seed_and_of_several_are_read(tmp_path):
    several = write_run(tmp_path / "several", *(scored(seed, settings={"order": seed}) for seed in (10, 2, 0)))
    write_run(several, scored(99))  # the common results of the seeds
    (several / "seed_notes").mkdir()
    one = write_run(tmp_path / "one", scored(7))
    runs = read_runs([several, one])
    assert [(run.name, [seed["seed"] for seed in run.seeds]) for run in runs] == [("several", [0, 2, 10]), ("one", [7])]
    (one / "config.json").touch()
    (one / "seed3").mkdir()  # no seed of a run that has its own settings
    assert [seed["seed"] for seed in read_runs([one])[0].seeds] == [7]


def test_results_from_before_there_were_recipes_are_of_the_published_one(tmp_path):
    before = write_run(tmp_path / "before", scored(0))
    now = write_run(tmp_path / "now", scored(0, settings={"recipe": "published", "select": "last", "holdout": 0.1}))
    robust = write_run(tmp_path / "robust", scored(0, settings={"recipe": "robust"}))
    assert list(compare(read_runs([before, now]), ["image_auroc"]).notes) == []
    assert list(compare(read_runs([before, robust]), ["image_auroc"]).notes) == [
        "Setting recipe: published (before); robust (robust)."
    ]


BROKEN = {
    "{": "cannot be read",
    "[]": "expected object, got array",
    json.dumps({**scored(), "settings": [], "test_files": None}): "settings: expected object, got array",
    json.dumps(scored(0, {"tile": {"image_auroc": 99.8}})): "must be a fraction in 0..1, got 99.8",
    json.dumps(scored(0, {"tile": {"image_auroc": True}})): "must be a fraction in 0..1, got True",
    json.dumps(scored(0, {"tile": {"image_auroc": "high"}})): "is broken",
    json.dumps(scored(0, {"tile": [0.5]})): "is broken",
    json.dumps(scored(0, test_files={"wood": {"sha256": "x"}})): "is broken",
    json.dumps(scored(0, published_protocol={"tile": {"epoch": 3}})): "is broken",
    json.dumps(scored(0, training={"code": "1.0"})): "is broken",
    json.dumps(scored(0, gains={"tile": 2})): "is broken",
    json.dumps(scored(0, gains={"tile": "nan"})): "is broken",
    json.dumps(scored(0, {"tile": {"image_auroc": float("nan")}})): "cannot be read",
    json.dumps(scored(0, test_files={"tile": {"sha256": ["x"]}})): "is broken",
    "[" * 100_000: "cannot be read",
    '"\udcff"': "cannot be read",
}


@pytest.mark.parametrize("text", BROKEN)
def test_results_that_cannot_be_used_are_named(tmp_path, text):
    whole, broken = write_run(tmp_path / "whole", scored()), write_run(tmp_path / "broken", scored())
    (broken / "results.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError) as raised:
        read_runs([whole, broken])
    assert re.match(f"{broken}/results.json .*{re.escape(BROKEN[text])}", str(raised.value))
    assert f"; write it with: python test.py --data_root DIR --run {broken}" in str(raised.value)
    assert str(whole) not in str(raised.value)


def test_every_missing_result_is_named(tmp_path):
    seeds = write_run(tmp_path / "seeds", scored(0), scored(1))
    (seeds / "seed1/results.json").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError) as raised:
        read_runs([seeds, tmp_path / "empty", write_run(tmp_path / "whole", scored()), tmp_path / "absent"])
    advice = "write it with: python test.py --data_root DIR --run"
    assert str(raised.value).split("; ") == [
        f"{seeds}/seed1 has no results.json", f"{advice} {seeds}",
        f"{tmp_path}/empty has no results.json", f"{advice} {tmp_path}/empty",
        f"there is no run folder {tmp_path}/absent",
    ]


def test_names_are_the_shortest_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"runs/x/aand": "x/aand", "runs/y/aand": "runs/y/aand", "old/y/aand": "old/y/aand", "runs/x": "x"}
    assert short_names([Path(path) for path in names]) == list(names.values())
    assert short_names([Path("."), Path("a/../b/")]) == [tmp_path.name, "b"]
    with pytest.raises(RunError, match="each run only once: a and b/../a"):
        short_names([Path("a"), Path("c"), Path("b/../a")])
