"""The 256-px WideResNet50-2 model against the public implementation's outputs, within 1e-4 relative."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.aand import discrepancies, sum_levels
from models.losses import level_mask
from models.official import build_official, load_ours, split_official
from tests.support.golden import EXPECTED, FOLDER, array, official_part

GOLDEN = np.load(FOLDER / "wide_resnet50_2_forward.npz")
CUT = np.s_[:, ::37, ::5, ::5]
TOLERANCE = 1e-4  # relative to the golden array's largest magnitude


@pytest.fixture(scope="module")
def outputs() -> dict[str, np.ndarray]:
    """Every tensor of the golden files, uncut, by its golden name."""
    model = build_official()
    ours, _ = split_official({part: official_part(part) for part in ("encoder_AT", "bn", "decoder_ss")})
    load_ours(model, ours, source="golden")
    model.eval()
    images = array(1234, (1, 3, 256, 256))
    mask = torch.zeros(1, 1, 256, 256)
    mask[:, :, 96:150, 60:131] = 1
    with torch.inference_mode():
        features = model.pretrained(images)
        amplified = model.teacher.amplify(features)
        masks = [level_mask(mask, level.shape[-2:]) for level in features]
        raas = model.teacher.amplification
        true_mask = [m * raa.generator(f) for m, raa, f in zip(masks, raas, features, strict=True)]
        embedding = model.bottleneck([level.amplified for level in amplified])
        student = model.decoder(embedding)
        raw = sum_levels(discrepancies([level.amplified for level in amplified], student), (256, 256))
        anomaly_map, anomaly_score = model(images)
    found = {"embedding": embedding, "anomaly_map_raw": raw, "anomaly_map": anomaly_map, "image_score": anomaly_score}
    for i in range(3):
        found |= {
            f"teacher_{i}": features[i],
            f"amplified_{i}": amplified[i].amplified,
            f"residual_{i}": amplified[i].residual,
            f"gate_{i}": amplified[i].gate,
            f"residual_true_mask_{i}": true_mask[i],
            f"student_{i}": student[i],
        }
    return {name: tensor.numpy() for name, tensor in found.items()}


def cut(name: str, values: np.ndarray) -> np.ndarray:
    """The part of a whole tensor that the golden file keeps."""
    if name == "image_score":
        return values[0]
    if name.startswith("anomaly_map"):
        return values[0, 0, ::7, ::7]
    if name.startswith("gate"):
        return values.reshape(1, -1, 1)[:, ::17]
    return values[CUT]


@pytest.mark.parametrize("name", GOLDEN.files)
def test_outputs_match_the_public_implementation(name, outputs):
    golden = GOLDEN[name]
    found = cut(name, outputs[name])
    assert found.shape == golden.shape
    assert np.abs(found - golden).max() <= TOLERANCE * np.abs(golden).max()


@pytest.mark.parametrize("name", EXPECTED["forward"])
def test_whole_tensors_have_the_golden_mean_spread_and_size(name, outputs):
    values = outputs[name].astype(np.float64)
    found = [values.mean(), values.std(ddof=1), np.abs(values).max()]
    assert np.allclose(found, EXPECTED["forward"][name], rtol=TOLERANCE, atol=TOLERANCE * EXPECTED["forward"][name][2])
