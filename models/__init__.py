"""The model: frozen teacher, amplification, student. The names here can be had without waiting for torch."""

MAX_IMAGE_SIZE = 4096  # pixels
BACKBONES = ("wide_resnet50_2", "resnet18", "resnet34", "resnet50", "efficientnet_lite0")


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says which file, flag or alternative helps."""
