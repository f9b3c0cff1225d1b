"""The model: frozen teacher, amplification, student. The names here can be had without waiting for torch."""

import numpy as np

MAX_IMAGE_SIZE = 4096  # pixels
BACKBONES = (
    "wide_resnet50_2", "resnet18", "resnet34", "resnet50", "resnet50_v1",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
)


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says which file, flag or alternative helps."""


def probe_image(size: int) -> np.ndarray:
    """A plain image uint8 (size, size, 3) of every grey level in each colour, on which models are tried when loaded."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1]), axis=2)
