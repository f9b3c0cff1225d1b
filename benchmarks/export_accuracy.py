"""How far each exported file is from PyTorch, on the test images of a trained category.

    python benchmarks/export_accuracy.py runs/NAME --category bottle
    python benchmarks/export_accuracy.py runs/NAME --category bottle --only onnx-fp32 openvino-int8

PyTorch is what test.py computes: Pillow's resize, float32. A row has the largest difference of a score as a share of
it, the largest of a map's pixel, decisions changed at the threshold (the run's own or, without thresholds.json, the
highest score of a training image), and image AUROC. Files are written to a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from datasets.base import load_image
from utils.cli import at_least, run_command, user_path
from utils.detection.model_file import RUNTIMES, ExportedModel
from utils.detection.prediction import Predictor
from utils.export.formats import FORMATS, ExportSource, export
from utils.metrics import evaluate
from utils.runs.folder import Run

VARIANTS = [f"{kind}-{precision}" for kind, row in FORMATS.items() for precision in row.precisions]
MEASURED_ON = 32  # training images that int8 is measured on, as in scripts/export.py

Infer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder")
    add("--category", required=True, metavar="NAME", help="trained category of it")
    add("--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    add("--threads", type=at_least(1), default=2, metavar="N", help="of every runtime (default 2)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    settings, source = Run(args.run).settings, ExportSource.of(args.run, args.category)
    data = settings.open_data([args.category])
    train, test = (data.samples(args.category, split) for split in ("train", "test"))
    labels = np.array([sample.label for sample in test])
    train_images, images = ([load_image(sample.image_path) for sample in samples] for samples in (train, test))
    maps, scores = reference(source, images)
    thresholds = source.facts.thresholds
    threshold = thresholds.image_threshold if thresholds else reference(source, train_images)[1].max()
    print(f"{args.category}, {source.facts.backbone}, {source.facts.recipe}: {len(test)} test images, threshold "
          f"{threshold:.5g}\n")
    print("| file | MB | scores, of their value | maps | decisions changed | I-AUROC % |")
    print("|---|---|---|---|---|---|")
    print(f"| PyTorch, fp32 | | | | | {auroc(labels, scores, maps):.3f} |")
    measured_on = train_images[:: max(1, len(train_images) // MEASURED_ON)][:MEASURED_ON]
    for variant in args.only:
        kind, precision = variant.split("-")
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"model{FORMATS[kind].suffixes[0]}"
            export(source, kind, path, precision, measured_on)
            size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
            found_maps, found = run_all(open_file(path, args.threads), images)
        apart, maps_apart = np.abs(found - scores) / np.abs(scores), np.abs(found_maps - maps)
        changed = int(((found > threshold) != (scores > threshold)).sum())
        print(f"| {kind}, {precision} | {size:.1f} | {apart.max():.1e} | {maps_apart.max():.1e} | {changed} | "
              f"{auroc(labels, found, found_maps):.3f} |", flush=True)


def reference(source: ExportSource, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, S, S) and scores (N,) as test.py has them."""
    view = source.facts.view
    shown = np.stack([view.show(image, source.facts.image_size) for image in images])
    return Predictor.of(source.model, source.facts.image_size, view, batch_size=8).maps(shown)


def open_file(path: Path, threads: int) -> Run:
    """What runs a model file."""
    if not RUNTIMES[path.suffix].instead:
        return ExportedModel(path, threads).run
    model = torch.jit.load(path) if path.suffix == ".pt" else torch.export.load(path).module()

    @torch.no_grad()
    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = model(torch.tensor(images))
        return maps[:, 0].numpy(), scores.numpy()

    return run


def run_all(run: Run, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One image at a time: they may differ in size."""
    pairs = [run(image[None]) for image in images]
    return np.concatenate([maps for maps, _ in pairs]), np.concatenate([scores for _, scores in pairs])


def auroc(labels: np.ndarray, scores: np.ndarray, maps: np.ndarray) -> float:
    """Of images, in percent."""
    return 100 * evaluate(labels, scores, None, maps)["image_auroc"]


if __name__ == "__main__":
    run_command(main)
