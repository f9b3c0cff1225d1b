"""Thresholds by good images alone: ranks and p-values by hand, the promised rates in simulations, files that lie."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from utils.detection.rates import check_look, images_needed, shortage, smallest_rate, suitable_look
from utils.detection.thresholds import (
    GIVEN,
    HELD_OUT,
    LargestPixels,
    Thresholds,
    read_thresholds,
    write_thresholds,
)
from utils.runs.folder import Run
from utils.system.errors import RunError, UsageError


def pixels_of(*maps: np.ndarray, most: int = 1000) -> LargestPixels:
    pixels = LargestPixels(most)
    for one in maps:
        pixels.add(np.asarray(one, np.float32)[None])
    return pixels


def thresholds_of(scores, far: float, maps=None) -> Thresholds:
    maps = [[[score]] for score in scores] if maps is None else maps
    return Thresholds.from_scores(scores, pixels_of(*maps), far, HELD_OUT)


# Images


@pytest.mark.parametrize(
    ("count", "far", "rank"),
    [
        (4, 0.2, 4),  # ceil(5 * 0.8) = 4, the largest of 4
        (4, 0.4, 3),
        (4, 0.5, 3),  # ceil(2.5)
        (9, 0.1, 9),
        (9, 0.3, 7),
        (99, 0.29, 71),  # 100 * 0.29 is 28.999999999999996 in floats
        (19, 0.05, 19),
        (99, 0.01, 99),
        (100, 0.01, 100),  # ceil(99.99)
        (199, 0.01, 198),
        (1, 0.9, 1),  # ceil(0.2)
    ],
)
def test_the_threshold_is_the_conformal_rank(count, far, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1)).tolist()
    found = thresholds_of(scores, far)
    assert found.image_threshold == rank  # the scores are their own ranks
    assert found.far == far


def test_a_rate_below_what_the_images_allow_gives_the_largest_score_and_says_so():
    found = thresholds_of([0.1, 0.4, 0.2], 0.01, maps=[[[1, 5]], [[9, 2]], [[3, 4]]])
    assert (found.image_threshold, found.pixel_threshold) == (0.4, 9)
    assert (found.far, found.wanted_far) == (0.25, 0.01)
    assert shortage(3, 0.01) == "3 good images allow no rate of false alarms below 0.25; 0.01 needs 99"
    assert str(found) == "3 good images (held out): anomalous above 0.4, at most 25 % false alarms"


@pytest.mark.parametrize(("far", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3)])
def test_how_many_images_a_rate_needs(far, needed):
    assert images_needed(far) == needed
    assert shortage(needed, far) is None and shortage(needed - 1, far) is not None
    assert smallest_rate(needed) <= far < smallest_rate(needed - 1)


@pytest.mark.parametrize(("score", "expected"), [(1, 1.0), (1.5, 0.8), (2, 0.8), (2.5, 0.6), (4, 0.6), (5, 0.2)])
def test_p_values(score, expected):
    assert thresholds_of([4, 4, 2, 1], 0.2).p_value(score) == expected


@pytest.mark.parametrize("far", [0.05, 0.1, 0.25, 0.3])
def test_anomalous_is_what_has_a_p_value_of_the_rate_or_less(far):
    scores = np.random.default_rng(1).integers(0, 12, 23)  # with ties
    found = thresholds_of(scores.tolist(), far)
    for score in np.arange(-1, 13, 0.5):
        assert (score > found.image_threshold) == (Fraction(found.p_value(score)).limit_denominator(24) <= far)


# Pixels


def slow_pixel_threshold(maps: np.ndarray, far: float) -> float:
    """By the definition: of all values the smallest that meets it."""
    count, rate = len(maps), max(Fraction(str(far)), Fraction(1, len(maps) + 1))
    for value in np.unique(maps):
        share = Fraction(int((maps > value).sum()), maps.size)
        if Fraction(count, count + 1) * share + Fraction(1, count + 1) <= rate:
            return float(value)
    raise AssertionError


@pytest.mark.parametrize("far", [0.01, 0.09, 0.1, 0.2, 0.37, 0.9])
@pytest.mark.parametrize("kind", ["continuous", "ties"])
def test_pixel_threshold_meets_its_definition(far, kind):
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(10, 6, 7)) if kind == "continuous" else rng.integers(0, 9, (10, 6, 7))
    maps = maps.astype(np.float32)
    pixels = LargestPixels()
    for part in np.split(maps, [3, 4]):
        pixels.add(part)
    found = Thresholds.from_scores(maps.max(axis=(1, 2)), pixels, far, GIVEN)
    assert found.pixel_threshold == slow_pixel_threshold(maps, far)
    assert found.at(far) == found


def test_another_rate_holds_what_it_promises_and_is_nearly_the_smallest():
    maps = np.random.default_rng(3).normal(size=(40, 30, 30)).astype(np.float32)
    pixels = LargestPixels()
    pixels.add(maps)
    found = Thresholds.from_scores(maps.max(axis=(1, 2)), pixels, 0.05, GIVEN)
    for far in (0.03, 0.06, 0.1, 0.4):
        moved = found.at(far)
        assert moved.image_threshold == thresholds_of(maps.max(axis=(1, 2)).tolist(), far).image_threshold
        exact = slow_pixel_threshold(maps, far)
        above, allowed = (maps > moved.pixel_threshold).sum(), (maps > exact).sum()
        assert moved.pixel_threshold >= exact and 0.95 * allowed - 1 <= above <= allowed


def test_memory_is_bounded_and_what_is_kept_exact():
    maps = np.random.default_rng(4).normal(size=(50, 10, 10)).astype(np.float32)
    pixels = LargestPixels(most=700)
    for one in maps:
        pixels.add(one[None])
        assert sum(map(len, pixels.kept)) < 1400
    found = Thresholds.from_scores(maps.max(axis=(1, 2)), pixels, 0.1, GIVEN)
    assert found.pixel_threshold == slow_pixel_threshold(maps, 0.1)
    beyond = found.at(0.9)  # of 5,000 pixels, 700 are known: the threshold stays above those
    assert beyond.pixel_threshold == pytest.approx(np.sort(maps.reshape(-1))[-700], abs=0.05)


def test_the_colour_scale_has_the_threshold_in_its_middle():
    found = thresholds_of([3, 4, 5], 0.3, maps=[[[0, 1]], [[2, 7]], [[5, 6]]])  # 0 1 2 5 6 7
    assert found.colour_limits == (2, 2 * 5 - 2)  # rank 3 of those falling


# What is promised: false alarms of fresh good images, on average over the draws of all


@pytest.mark.parametrize(("count", "far"), [(20, 0.05), (20, 0.1), (50, 0.02), (50, 0.1), (100, 0.01), (100, 0.2)])
def test_false_alarms_are_as_rare_as_promised(count, far):
    rng, fresh, rates = np.random.default_rng(5), 200, []
    for _ in range(1000):
        scores = rng.gamma(3.0, size=count + fresh)  # of any distribution; a skewed one
        threshold = thresholds_of(scores[:count].tolist(), far).image_threshold
        rates.append((scores[count:] > threshold).mean())
    error = np.std(rates) / np.sqrt(len(rates))
    assert far - 1 / (count + 1) - 3 * error <= np.mean(rates) <= far + 3 * error


@pytest.mark.parametrize(("count", "far"), [(20, 0.05), (20, 0.1), (60, 0.05), (100, 0.02)])
def test_pixels_above_are_as_few_as_promised(count, far):
    rng, fresh, shares = np.random.default_rng(6), 50, []
    for _ in range(1000):
        levels = rng.normal(size=(count + fresh, 1))  # images differ more than their pixels do
        maps = (levels + 0.5 * rng.normal(size=(count + fresh, 25))).astype(np.float32)
        pixels = LargestPixels()
        pixels.add(maps[:count, None])
        found = Thresholds.from_scores(maps[:count].max(axis=1), pixels, far, GIVEN)
        shares.append((maps[count:] > found.pixel_threshold).mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert far - 2 / (count + 1) - 3 * error <= np.mean(shares) <= far + 3 * error


# Files


def test_a_file_gives_back_what_was_written(tmp_path):
    found = thresholds_of([0.1, 0.25, 0.3], 0.3, maps=[[[1, 5]], [[9, 2]], [[3, 4]]])
    assert read_thresholds(tmp_path, "bottle") is None
    write_thresholds(tmp_path, "bottle", found)
    assert read_thresholds(tmp_path, "bottle") == found
    content = json.loads(Run(tmp_path).category("bottle").thresholds.read_text())
    assert {name: content[name] for name in ("images", "far", "wanted_far", "image_threshold", "source")} == {
        "images": 3, "far": 0.3, "wanted_far": 0.3, "image_threshold": 0.3, "source": "held out"
    }
    assert content["scores"] == [0.1, 0.25, 0.3]


DAMAGE = {
    "no object": lambda content: [content],
    "a field missing": lambda content: {k: v for k, v in content.items() if k != "scores"},
    "one too many": lambda content: content | {"more": 1},
    "another threshold": lambda content: content | {"image_threshold": 9.0},
    "another pixel threshold": lambda content: content | {"pixel_threshold": 0.0},
    "another count": lambda content: content | {"images": 4},
    "another rate": lambda content: content | {"far": 0.001},
    "no scores": lambda content: content | {"scores": [], "images": 0},
    "scores of text": lambda content: content | {"scores": ["a", "b", "c"]},
    "scores unsorted": lambda content: content | {"scores": content["scores"][::-1]},
    "scores nested": lambda content: content | {"scores": [[1]]},
    "true as a score": lambda content: content | {"scores": [True, True, True]},
    "a rate of one": lambda content: content | {"wanted_far": 1},
    "no rate": lambda content: content | {"wanted_far": None},
    "no pixels": lambda content: content | {"pixels": 0},
    "no tail": lambda content: content | {"pixel_tail": []},
    "a tail of numbers": lambda content: content | {"pixel_tail": [1, 2]},
    "a rising tail": lambda content: content | {"pixel_tail": [[0, 1.0], [1, 2.0]]},
    "a tail without its top": lambda content: content | {"pixel_tail": [[1, 1.0]]},
    "a rank that is none": lambda content: content | {"pixel_tail": [[0, 1.0], [0.5, 1.0]]},
    "another source": lambda content: content | {"source": "the sky"},
    "a list as source": lambda content: content | {"source": []},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_wrong_in_a_file_is_an_error_that_names_it(tmp_path, damage):
    found = thresholds_of([0.1, 0.25, 0.3], 0.3)
    write_thresholds(tmp_path, "bottle", found)
    path = Run(tmp_path).category("bottle").thresholds
    path.write_text(json.dumps(damage(found.to_dict())))
    with pytest.raises(RunError, match="thresholds.json cannot be read .*scripts/calibrate.py"):
        read_thresholds(tmp_path, "bottle")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"scores": NaN}'])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path, content):
    path = Run(tmp_path).category("bottle").thresholds
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunError, match="thresholds.json cannot be read"):
        read_thresholds(Path(tmp_path), "bottle")


# Images to look at, and names


def test_three_verdicts_by_two_rates():
    found = thresholds_of(range(1, 20), 0.05).at(look=0.2)  # 20 * 0.05 = 1 of 20 above 19, 20 * 0.2 = 4 above 16
    assert (found.image_threshold, found.look_threshold) == (19, 16)
    verdicts = [found.verdict(score) for score in (0, 16, 16.5, 19, 19.5)]
    assert verdicts == ["good", "good", "look", "look", "anomalous"]
    for score in np.linspace(0, 25, 101):
        p_value = found.p_value(score)
        assert found.verdict(score) == ("anomalous" if p_value <= 0.05 else "look" if p_value <= 0.2 else "good")
    assert found.at(0.3).look_threshold is None and found.at(0.3).verdict(16.5) == "anomalous"
    assert found.at(0.3).at(0.05) == found
    plain = thresholds_of(range(1, 20), 0.05)
    assert plain.look_threshold is None and plain.verdict(18.5) == "good"


def test_the_photographs_that_set_the_threshold_are_named():
    pixels = pixels_of(np.zeros((2, 2)))
    names = ["lot/c", "lot/a", "lot/d", "lot/b"]
    found = Thresholds.from_scores([3.0, 1.0, 4.0, 2.0], pixels, 0.4, HELD_OUT, names=names, look=0.7)
    assert found.names == ("lot/a", "lot/b", "lot/c", "lot/d") and found.scores == (1, 2, 3, 4)
    assert (found.image_threshold, found.setter) == (3, "lot/c")
    assert found.highest == ("lot/d", "lot/c", "lot/b")
    assert str(found) == (
        "4 good images (held out): anomalous above 3 (lot/c), at most 40 % false alarms; to be looked at above 2; "
        "the highest of the good: lot/d, lot/c, lot/b"
    )
    again = Thresholds.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found


def test_earlier_files_have_neither_names_nor_a_rate_to_look_at():
    found = thresholds_of([1.0, 2.0], 0.5)
    assert not {"names", "wanted_look", "model"} & set(found.to_dict())
    assert Thresholds.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("changes", [{"wanted_look": 1.0}, {"wanted_look": 0.0}, {"names": ("a",)}])
def test_rates_and_names_that_cannot_be(changes):
    found = thresholds_of([1.0, 2.0], 0.5)
    with pytest.raises(ValueError, match="wanted_look must be|1 names of 2 scores"):
        Thresholds.from_dict(found.to_dict() | changes)


def test_a_rate_to_look_at_is_above_that_of_false_alarms():
    assert [suitable_look(far) for far in (0.01, 0.02, 0.05, 0.1, 0.5)] == [0.1, 0.1, 0.2, 0.3, 0.5]
    check_look(0.05, 0.1)
    check_look(0.05, None)
    with pytest.raises(UsageError, match="`look` 0.05 must be above `far` 0.05"):
        check_look(0.05, 0.05)
