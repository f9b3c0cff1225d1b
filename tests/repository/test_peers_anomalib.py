"""benchmarks/peers.py where anomalib is installed: what its methods are given and what is taken from them; its metrics
and its PatchCore beside ours on the same arrays."""

from __future__ import annotations

from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("anomalib", reason="pip install -r requirements-peers.txt")

# isort: split
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.models import ReverseDistillation, Stfpm
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torchvision.models import resnet18

from benchmarks import peers
from benchmarks.peer_anomalib import Items, PeerFit, trunk_weights
from benchmarks.peer_fits import Data
from benchmarks.peer_methods import METHODS
from benchmarks.peers import Job
from models import WeightsError
from models.memory import embed
from models.patchcore import PatchCore
from models.teacher import build_teacher
from tests.support.trees import make_mvtec
from utils.metrics import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSE = 3e-7  # its sums are of float32


@pytest.fixture
def trunk(tmp_path) -> Path:
    """A file of a ResNet-18's weights up to layer3, with running statistics as of a trained one."""
    torch.manual_seed(0)
    path = tmp_path / "trunk.pth"
    torch.save({name: t for name, t in resnet18().state_dict().items() if not name.startswith(("layer4", "fc"))}, path)
    return path


@pytest.fixture
def options(tmp_path, trunk) -> Namespace:
    data = make_mvtec(tmp_path / "data/mvtec", train=8, good=3, size=64).parent
    return Namespace(
        data_root=data, image_size=64, epochs=1, weights=str(trunk), aux_path=None, repetitions=2, threads=1,
        output=tmp_path / "out",
    )


def random_maps(seed: int, images: int = 9, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Masks of two rectangles each, the first third empty, and maps that follow them loosely: float32 in 0..1."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, size, size), np.uint8)
    for mask in masks[images // 3 :]:
        for _ in range(2):
            top, left = rng.integers(0, size - 12, 2)
            mask[top : top + rng.integers(2, 12), left : left + rng.integers(2, 12)] = 1
    return masks, np.clip(rng.normal(0.3 + 0.25 * masks, 0.15), 0, 1).astype(np.float32)


def both(masks: np.ndarray, maps: np.ndarray) -> tuple[list[float], list[float]]:
    """I-AUROC, P-AUROC and PRO by our metrics and by anomalib's; an image's score is its map's maximum."""
    labels, scores = masks.any(axis=(1, 2)).astype(int), maps.max(axis=(1, 2))
    ours = evaluate(labels, scores, masks, maps)
    theirs = []
    for metric, values, truth in ((_AUROC(), scores, labels), (_AUROC(), maps, masks), (_AUPRO(), maps, masks)):
        metric.update(torch.from_numpy(values), torch.from_numpy(truth).long())
        theirs.append(float(metric.compute()))
    return [ours[name] for name in ("image_auroc", "pixel_auroc", "aupro")], theirs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [None, 10])  # without and with many equal values
def test_metrics_are_the_same_for_maps_from_0_to_1(seed, levels):
    masks, maps = random_maps(seed)
    ours, theirs = both(masks, maps if levels is None else np.round(levels * maps) / levels)
    assert ours == pytest.approx(theirs, abs=CLOSE)
    assert 0.5 < ours[1] < 1 and 0 < ours[2] < 1


def test_its_auroc_of_raw_scores_is_not_exact():
    # torchmetrics takes values beyond 0..1 for logits: the sigmoid of those above 17 is 1 in float32
    masks, maps = random_maps(0)
    ours, theirs = both(masks, 40 * maps)
    assert ours == pytest.approx(both(masks, maps)[0], abs=1e-12)  # whatever the scale
    assert theirs[0] == 0.5 and ours[0] > 0.6
    assert theirs[1] < ours[1] - 0.02
    assert theirs[2] == pytest.approx(ours[2], abs=CLOSE)  # no sigmoid there


def test_patchcore_is_ours_with_the_same_memory(trunk):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (5, 3, 64, 64), dtype=np.uint8))
    ours = PatchCore(build_teacher("resnet18", str(trunk))).eval()
    with trunk_weights(str(trunk)):
        theirs = PatchcoreModel(["layer2", "layer3"], "resnet18").eval()
    theirs.anomaly_map_generator.forward = lambda distances, size: distances  # enlarged by nearest neighbour otherwise
    inputs = ours.normalise(images)
    with torch.no_grad():
        patches = embed(ours.teacher(inputs))
        ours.memory.patches = theirs.memory_bank = patches[:3].permute(0, 2, 3, 1).flatten(0, 2)[::2]
        distances, _ = ours.memory.nearest(patches[3:])
        _, scores = ours(inputs[3:])
        answer = theirs(inputs[3:])
    assert distances.std() > 0.01 and scores.min() > 0
    np.testing.assert_allclose(distances, answer.anomaly_map[:, 0], rtol=1e-3)
    np.testing.assert_allclose(scores, answer.pred_score, rtol=1e-4)


def test_pretrained_is_the_file_and_nothing_is_downloaded(trunk):
    with trunk_weights(str(trunk)):
        model = Stfpm(visualizer=False, evaluator=False).model
        with pytest.raises(WeightsError, match="wide_resnet50_2 would be downloaded"):
            ReverseDistillation()
    weights = torch.load(trunk)["layer2.0.conv1.weight"]
    teacher, student = (part.feature_extractor.layer2[0].conv1.weight for part in
                        (model.teacher_model, model.student_model))
    assert torch.equal(teacher, weights) and not torch.equal(student, weights)


def test_weights_that_do_not_fit_are_named(tmp_path, trunk):
    state = torch.load(trunk)
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with (
        pytest.raises(WeightsError, match="`weights` .*part.pth: 1 of resnet18 are missing, e.g. layer1.0.conv1"),
        trunk_weights(str(tmp_path / "part.pth")),
    ):
        Stfpm()


def test_items_are_decoded_images_masks_and_labels():
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[1, 0] = 1
    [batch] = Items(images, np.array([0, 1]), masks).batches(2)
    np.testing.assert_allclose(batch.image, images.permute(0, 3, 1, 2) / 255)
    assert batch.gt_label.tolist() == [0, 1] and np.array_equal(batch.gt_mask, masks)
    assert not Items(images)[1].gt_mask.any() and Items(images)[1].gt_label == 0


def test_raw_maps_are_before_the_post_processor(options):
    fit = PeerFit(METHODS["anomalib-padim"], Data("mvtec/bottle", options), options, 0)
    assert fit.fit() == "1"
    raw, clamped = fit.predict(), fit.clamped()
    assert raw.maps.shape == clamped.maps.shape == (6, 64, 64) and raw.scores.shape == (6,)
    assert raw.maps.max() > 1 and 0 <= clamped.maps.min() < clamped.maps.max() <= 1
    again = fit.predict()
    np.testing.assert_array_equal(raw.maps, again.maps)  # limits change no raw map
    # within the limits post-processing is linear
    inner = (clamped.maps > 0) & (clamped.maps < 1)
    assert 0 < inner.mean() < 1
    slope, shift = np.polyfit(raw.maps[inner], clamped.maps[inner], 1)
    np.testing.assert_allclose(slope * raw.maps[inner] + shift, clamped.maps[inner], atol=1e-4)


@pytest.mark.parametrize("method, epochs", [("anomalib-patchcore", "1"), ("anomalib-rd4ad", "1 of 200")])
def test_a_peer_is_measured_from_images_to_record(options, method, epochs):
    found = peers.measure(Job("mvtec/bottle", method, 0), options)
    assert found["epochs"] == epochs and set(found["clamped"]) == set(found["metrics"]) >= {"image_auroc", "aupro"}
    assert found["file_difference"] < 1e-3
    assert found["file_gb"] < found["fitting_gb"]
    assert found["environment"]["anomalib"] == version("anomalib")
