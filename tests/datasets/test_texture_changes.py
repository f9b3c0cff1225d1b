"""The ten texture changes, each by hand and against Pillow or OpenCV, and which of them come."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from datasets.anomalies import texture_changes
from datasets.anomalies.texture_changes import DRAWS, TEXTURE_CHANGES, TextureChange, change_textures


def pixels(*rgb):
    """A row of pixels: uint8 (1, 3, 1, N)."""
    return torch.tensor(rgb, dtype=torch.uint8).T[None, :, None]


def draws(*values):
    return torch.tensor([values])


def picture(size=48, seed=3):
    """A smooth picture with noise, as NumPy (H, W, 3) and as a batch (1, 3, H, W)."""
    rng = np.random.default_rng(seed)
    values = cv2.GaussianBlur(rng.normal(0, 400, (size, size, 3)), (0, 0), 3) + rng.normal(110, 12, (size, size, 3))
    image = np.clip(values, 0, 255).astype(np.uint8)
    return image, torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def assert_equals(changed, expected, most=0):
    found = changed[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= most


def share(value, lowest, highest):
    """The draw that gives a whole number between lowest and highest."""
    return (value - lowest + 0.5) / (highest - lowest + 1)


def test_gamma_by_hand():
    # 64/255 = 0.25098: squared 0.06299 -> 16.06; square root 0.50098 -> 127.75; power 1 unchanged
    changed = texture_changes.gamma(pixels((64, 64, 64), (255, 0, 3)), draws(1.0, 0.0, 1 / 3))
    assert torch.equal(changed, pixels((16, 128, 64), (255, 0, 3)))


def test_brightness_by_hand():
    # grey keeps its hue: 100 * 1.2 - 30 = 90; 250 * 1.2 - 30 = 270 -> 255; 10 * 1.2 - 30 < 0 -> 0
    changed = texture_changes.brightness(pixels((100,) * 3, (250,) * 3, (10,) * 3), draws(1.0, 0.0))
    assert torch.equal(changed, pixels((90,) * 3, (255,) * 3, (0,) * 3))


@pytest.mark.parametrize(("factor", "shift"), [(0.8, 30), (1.1, -12), (1.2, 30)])
def test_brightness_as_opencv(factor, shift):
    image, batch = picture()
    luma, red, blue = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
    luma = np.clip(np.rint(luma * factor + shift), 0, 255).astype(np.uint8)
    expected = cv2.cvtColor(cv2.merge((luma, red, blue)), cv2.COLOR_YCrCb2RGB)
    changed = texture_changes.brightness(batch, draws((factor - 0.8) / 0.4, (shift + 30) / 60))
    assert_equals(changed, expected, most=2)  # OpenCV rounds the chroma to 8 bits


def test_sharpness_by_hand():
    # Pillow's smoothing kernel is (1 1 1, 1 5 1, 1 1 1) / 13: a lone 130 on black becomes 50
    texture = torch.zeros(1, 3, 5, 5, dtype=torch.uint8)
    texture[..., 2, 2] = 130
    assert texture_changes.sharpness(texture, draws(0.0))[0, 0, 2, 2] == 50
    assert torch.equal(texture_changes.sharpness(texture, draws(0.5)), texture)
    assert texture_changes.sharpness(texture, draws(0.75))[0, 0, 2, 2] == 170  # 50 + 1.5 * (130 - 50)


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.9])
def test_sharpness_as_pillow(factor):
    image, batch = picture()
    expected = ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor)
    assert_equals(texture_changes.sharpness(batch, draws(factor / 2)), expected, most=1)  # Pillow rounds down


def test_hue_saturation_by_hand():
    # saturation 255 - 50 = 205: the smallest channel rises to 50; hue + 50 is 50/255 of the circle, 1.176 sixths: red
    # turns past yellow (1 sixth), so green is full and red falls to 1 - 0.176
    red = pixels((255, 0, 0))
    middle = 0.5  # no shift
    assert torch.equal(texture_changes.hue_saturation(red, draws(middle, 0.0)), pixels((255, 50, 50)))
    assert torch.equal(texture_changes.hue_saturation(red, draws(1.0, middle)), pixels((210, 255, 0)))
    assert torch.equal(texture_changes.hue_saturation(red, draws(0.0, 1.0)), pixels((210, 0, 255)))  # full stays full
    assert torch.equal(texture_changes.hue_saturation(pixels((90, 90, 90)), draws(1.0, middle)), pixels((90, 90, 90)))


@pytest.mark.parametrize(("hue", "saturation"), [(0, 0), (50, 0), (-50, 0), (20, 35), (-5, -50)])
def test_hue_saturation_as_opencv(hue, saturation):
    image, batch = picture()
    image = image.astype(np.float32) / 255
    found_hue, found_saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))  # 0..360, 0..1, 0..1
    found_hue = (found_hue + 360 * hue / 255) % 360
    found_saturation = np.clip(found_saturation + saturation / 255, 0, 1)
    expected = 255 * cv2.cvtColor(cv2.merge((found_hue, found_saturation, value)), cv2.COLOR_HSV2RGB)
    changed = texture_changes.hue_saturation(batch, draws((hue + 50) / 100, (saturation + 50) / 100))
    assert_equals(changed, np.rint(expected), most=1)


def test_solarise_by_hand():
    texture = pixels((0, 99, 100), (101, 200, 255))
    changed = texture_changes.solarise(texture, draws(0.3, share(100, 32, 128)))
    assert torch.equal(changed, pixels((0, 99, 155), (154, 55, 0)))
    assert torch.equal(texture_changes.solarise(texture, draws(0.7, share(100, 32, 128))), texture)


@pytest.mark.parametrize("threshold", [32, 77, 128])
def test_solarise_as_pillow(threshold):
    image, batch = picture()
    expected = ImageOps.solarize(Image.fromarray(image), threshold)
    assert_equals(texture_changes.solarise(batch, draws(0.0, share(threshold, 32, 128))), expected)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_as_pillow(bits):
    image, batch = picture()
    expected = ImageOps.posterize(Image.fromarray(image), bits)
    assert_equals(texture_changes.posterise(batch, draws(share(bits, 1, 8))), expected)


def test_invert_by_hand():
    assert torch.equal(texture_changes.invert(pixels((0, 1, 255)), draws()), pixels((255, 254, 0)))


def test_autocontrast_by_hand():
    # 50..150 is stretched to 0..255: 100 -> 127; with 20 % cut off at either end of 5 pixels, 60..140 is
    texture = pixels(*[(value,) * 3 for value in (50, 60, 100, 140, 150)])
    assert texture_changes.autocontrast(texture, draws(0.0))[0, 0, 0].tolist() == [0, 25, 127, 229, 255]
    assert texture_changes.autocontrast(texture, draws(0.999))[0, 0, 0].tolist() == [0, 0, 127, 255, 255]
    flat = torch.full((1, 3, 4, 4), 77, dtype=torch.uint8)
    assert torch.equal(texture_changes.autocontrast(flat, draws(0.5)), flat)


@pytest.mark.parametrize("cutoff", [0, 1, 7, 20])
def test_autocontrast_as_pillow(cutoff):
    for seed in range(3):
        image, batch = picture(seed=seed)
        expected = ImageOps.autocontrast(Image.fromarray(image), cutoff=cutoff)
        changed = texture_changes.autocontrast(batch, draws(share(cutoff, 0, 20)))
        difference = changed[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)
        assert set(np.unique(difference)) <= {0, 1}  # Pillow's product may fall just below a whole number


def test_equalise_by_hand():
    # 510 pixels, half 10 and half 20, the last bin left out: step 1, so 10 -> 0 and 20 -> 255
    texture = pixels(*[(10,) * 3] * 255, *[(20,) * 3] * 255)
    changed = texture_changes.equalise(texture, draws())[0, 0, 0]
    assert changed.tolist() == [0] * 255 + [255] * 255


def test_equalise_as_pillow():
    for size in (10, 48, 64):
        image, batch = picture(size)
        assert_equals(texture_changes.equalise(batch, draws()), ImageOps.equalize(Image.fromarray(image)))
    flat = torch.full((1, 3, 4, 4), 77, dtype=torch.uint8)
    assert torch.equal(texture_changes.equalise(flat, draws()), flat)


@pytest.mark.parametrize("degrees", [-45, 13, 45])
def test_rotate_as_opencv(degrees):
    image, batch = picture()
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), degrees, 1.0)
    expected = cv2.warpAffine(image.astype(np.float32), matrix, (48, 48), flags=cv2.INTER_LINEAR, borderValue=0)
    changed = texture_changes.rotate(batch, draws((degrees + 45) / 90))
    found = changed[0].permute(1, 2, 0).numpy().astype(float)
    assert np.abs(found - expected).mean() < 0.5  # OpenCV places pixels in steps of 1/32
    assert changed[0, :, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("change", TEXTURE_CHANGES, ids=lambda change: change.apply.__name__)
def test_a_batch_is_changed_image_by_image(change):
    batch = torch.cat([picture(seed=seed)[1] for seed in range(4)])
    parameters = torch.rand(4, change.draws, generator=torch.Generator().manual_seed(0))
    before = batch.clone()
    changed = change.apply(batch, parameters)
    singly = [change.apply(batch[i : i + 1], parameters[i : i + 1]) for i in range(4)]
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, torch.cat(singly))
    assert torch.equal(batch, before)
    if change.pixelwise:  # the pixels in another order give the same in that order
        turned = change.apply(batch.flip(-1), parameters)
        assert torch.equal(turned.flip(-1), changed)
        part = change.apply(batch[..., :5], parameters)
        assert torch.equal(part, changed[..., :5])


def test_what_is_not_pixelwise_depends_on_other_pixels():
    _, batch = picture()
    for change in TEXTURE_CHANGES:
        if not change.pixelwise:
            parameters = torch.full((1, change.draws), 0.9)
            part, whole = change.apply(batch[..., :24, :24], parameters), change.apply(batch, parameters)
            assert not torch.equal(part, whole[..., :24, :24]), change.apply.__name__


def test_three_of_ten_without_replacement_each_in_each_place(monkeypatch):
    marks = tuple(
        TextureChange(lambda t, d, i=i: t * 10 + i, change.draws, change.pixelwise)
        for i, change in enumerate(TEXTURE_CHANGES)
    )
    monkeypatch.setattr(texture_changes, "TEXTURE_CHANGES", marks)
    rows = torch.rand(3000, DRAWS, generator=torch.Generator().manual_seed(0))
    seen = [Counter(), Counter(), Counter()]
    steps = rows[:, :10].argsort(dim=1)[:, :3]
    changed = change_textures(torch.zeros(3000, 3, 2, 2, dtype=torch.uint8), rows)
    for found, order in zip(changed, steps.tolist(), strict=True):
        assert len(set(order)) == 3
        assert found[0, 0, 0] == (100 * order[0] + 10 * order[1] + order[2]) % 256
        for place, index in enumerate(order):
            seen[place][index] += 1
    for counts in seen:
        assert set(counts) == set(range(10))
        assert min(counts.values()) > 200  # 300 expected, 16 the spread


def test_pixels_at_places_are_those_of_the_whole_texture():
    batch = torch.cat([picture(seed=seed)[1] for seed in range(60)])
    rows = torch.rand(60, DRAWS, generator=torch.Generator().manual_seed(1))
    places = [torch.tensor([0, 7, 100, 48 * 48 - 1])] * 60
    whole, chosen = change_textures(batch, rows), change_textures(batch, rows, places)
    for texture, values, place in zip(whole, chosen, places, strict=True):
        assert values.shape == (3, 1, 4)
        assert torch.equal(texture.flatten(1)[:, place], values[:, 0])
