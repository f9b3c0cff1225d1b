"""The methods that benchmarks/peers.py compares: ours, and those of anomalib that need no download."""

from __future__ import annotations

from typing import Any, NamedTuple

OUR_EPOCHS = 20  # of each stage
TRUNK = "resnet18"  # every peer that takes a ResNet has this one, whatever its own default


class Ours(NamedTuple):
    """A method of this project; see models/recipes.py."""

    title: str
    method: str
    recipe: str = "published"
    backbone: str = TRUNK

    @property
    def teacher(self) -> str:
        return self.backbone


class Peer(NamedTuple):
    """A method of anomalib; all that is not given here is as its class has it."""

    title: str
    model: str  # class in anomalib.models
    options: dict[str, Any] = {}  # of the class
    epochs: int | None = None  # of its paper: the class names none; None: one pass over the images
    batch_size: int = 32  # anomalib's default
    textures: bool = False  # it trains on synthetic anomalies

    @property
    def teacher(self) -> str:
        return "–" if self.textures else TRUNK


Method = Ours | Peer

LITE = "efficientnet_lite0"
METHODS: dict[str, Method] = {
    "anomalib-padim": Peer("PaDiM, anomalib", "Padim"),
    "anomalib-patchcore": Peer("PatchCore, anomalib", "Patchcore", {"backbone": TRUNK}),
    "anomalib-dfm": Peer("DFM, anomalib", "Dfm", {"backbone": TRUNK}),
    "anomalib-stfpm": Peer("STFPM, anomalib", "Stfpm", epochs=100),
    "anomalib-rd4ad": Peer("RD4AD, anomalib", "ReverseDistillation", {"backbone": TRUNK}, 200),
    "anomalib-supersimplenet": Peer(
        "SuperSimpleNet, anomalib", "Supersimplenet", {"backbone": f"{TRUNK}.tv_in1k"}, 300
    ),
    "anomalib-fastflow": Peer("FastFlow, anomalib", "Fastflow", epochs=500),
    "anomalib-draem": Peer("DRAEM, anomalib", "Draem", epochs=700, batch_size=8, textures=True),
    "ours-patchcore": Ours("PatchCore, ours", "patchcore"),
    "ours-rd4ad": Ours("RD4AD, ours", "rd4ad"),
    "ours-published": Ours("AAND, ours", "aand"),
    "ours-robust": Ours("AAND, `--recipe robust`", "aand", "robust"),
    "ours-patchcore-lite0": Ours("PatchCore, ours", "patchcore", backbone=LITE),
    "ours-rd4ad-lite0": Ours("RD4AD, ours", "rd4ad", backbone=LITE),
    "ours-published-lite0": Ours("AAND, ours", "aand", backbone=LITE),
    "ours-robust-lite0": Ours("AAND, `--recipe robust`", "aand", "robust", LITE),
}
