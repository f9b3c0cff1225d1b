"""Which stored value is black and which is white: decided by declarations, or once by the training images."""

import pytest

from datasets.levels import EARLIER_LEVELS, Levels, Range, depth_of_white


def scale(kind, low, high, **options):
    """Black and white of an image that decides alone."""
    one = Range(kind, low, high, **options)
    return Levels.of([one]).scale_of(one)


@pytest.mark.parametrize(
    ("high", "white"), [(255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (4096, 16383),
                        (16384, 65535), (65535, 65535)],
)
def test_16_bit_files_end_at_the_depth_that_their_values_need(high, white):
    assert scale("uint16", 0, high) == (0, white)


def test_a_declared_depth_counts_whatever_the_values_are():
    assert scale("uint16", 3, 40, white=4095) == (0, 4095)
    levels = Levels.of([Range("uint16", 0, 60000), Range("uint16", 0, 40, white=4095)])
    assert levels == Levels(uint16=(0, 65535))
    assert levels.scale_of(Range("uint16", 0, 40, white=4095)) == (0, 4095)


def test_significant_bits_of_a_png_are_at_the_end_of_16_where_the_values_are():
    assert scale("uint16", 0, 900, depth=12) == (0, 4095)  # as cameras write them
    assert scale("uint16", 0, 9000, depth=12) == (0, 65535)  # as the standard says
    assert Levels.of([Range("uint16", 0, 100, depth=12), Range("uint16", 0, 65520, depth=12)]).uint16 == (0, 65535)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 1)), (0, 0.4, (0, 1)), (0, 1.01, (0, 1)), (0, 255, (0, 255)), (0, 258, (0, 255)),
        (0, 260, (0, 1023)), (0, 65535, (0, 65535)), (0, 70000, (0, 2**17)), (-0.01, 1, (0, 1)), (-0.9, 1, (-1, 1)),
        (-60, -20, (-64, 1)),
    ],
)
def test_float_images_end_at_a_usual_scale_overshoot_or_not(low, high, expected):
    assert scale("float32", low, high) == expected


def test_values_that_use_little_of_the_scale_get_their_own_range_and_as_much_on_either_side():
    assert scale("float32", 290, 310) == (270, 330)  # kelvin
    assert scale("uint16", 29000, 30000) == (28000, 31000)
    assert scale("uint16", 7, 7) == (0, 255)  # of one value there is no range


def test_declared_bits_count_where_little_of_them_is_used():
    assert scale("uint16", 100, 110, depth=12) == (0, 4095)
    assert scale("float32", 100, 110, depth=16) == (0, 65535)
    assert scale("float32", 0, 300, depth=8) == (0, 1023)  # more than it says


def test_the_bits_of_which_a_number_is_the_highest():
    assert [depth_of_white(white) for white in (255, 4095, 65535, 1.0)] == [8, 12, 16, 1]
    assert [depth_of_white(white) for white in (0, 256, 4094, None, b"255", (255,))] == [0] * 6


def test_what_ends_far_below_white_is_in_doubt():
    levels = Levels(uint16=(0, 4095))
    assert levels.doubt(Range("uint16", 0, 1023)) == "16 bits, values 0..1023; white is 4095"
    for values in (Range("uint16", 0, 1024), Range("uint8", 0, 9), Range("uint16", 0, 9, white=4095)):
        assert levels.doubt(values) == ""


def test_the_training_images_decide_together_and_for_all_later_ones():
    levels = Levels.of([Range("uint16", 10, 3000), Range("uint16", 0, 900), Range("uint8", 0, 255)])
    assert levels == Levels(uint16=(0, 4095))
    for high in (5, 900, 4095):
        assert levels.scale_of(Range("uint16", 0, high)) == (0, 4095)


@pytest.mark.parametrize(
    "values", [Range("uint16", 0, 4096), Range("float32", 0, 1.02), Range("float32", -0.02, 1), Range("int32", 0, 5)]
)
def test_what_does_not_fit_the_training_images_is_refused(values):
    with pytest.raises(ValueError, match="do not fit|neither"):
        Levels(uint16=(0, 4095), float32=(0, 1)).scale_of(values)


def test_without_such_training_images_only_what_is_certain_is_taken():
    assert Levels().scale_of(Range("uint8", 0, 255)) == (0, 255)
    assert Levels().scale_of(Range("uint16", 0, 16384)) == (0, 65535)
    assert Levels().scale_of(Range("uint16", 0, 9, white=4095)) == (0, 4095)
    for values in (Range("uint16", 0, 16383), Range("float32", 0, 1), Range("int32", 0, 255)):
        with pytest.raises(ValueError, match="neither it nor the training images tell which value is white"):
            Levels().scale_of(values)
    assert EARLIER_LEVELS.scale_of(Range("uint16", 0, 9)) == (0, 65535)


def test_levels_come_back_from_plain_values():
    levels = Levels(uint16=(0.0, 4095.0))
    content = {"uint16": [0.0, 4095.0], "int32": None, "float32": None}
    assert Levels.from_dict(content) == levels
    wrong = [{}, content | {"int32": [1, 1]}, content | {"int32": [0]}, content | {"int32": "ab"}, [], None]
    wrong += [content | {"int32": [0, True]}, content | {"int32": [0, float("nan")]}, content | {"more": None}]
    for damaged in wrong:
        with pytest.raises(ValueError, match="levels"):
            Levels.from_dict(damaged)


def test_a_range_in_words():
    assert str(Range("uint8", 0, 255)) == "8 bits"
    assert str(Range("uint16", 12, 4080)) == "16 bits, values 12..4080"
    assert str(Range("uint16", 12, 4080, depth=12)) == "16 bits (12 significant), values 12..4080"
    assert str(Range("uint16", 12, 4080, white=4095)) == "12 bits"
    assert str(Range("float32", 0, 0.5)) == "floating point, values 0..0.5"
