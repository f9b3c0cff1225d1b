"""The data that train.py trains on: which samples, how they are split, and everything decoded, once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from datasets import DataSource
from datasets.base import DataError, Sample
from datasets.batches import CALIBRATION_SEED, hold_out
from datasets.files import Files, evaluation_files, image_files, paths_of, texture_files, training_files
from datasets.foreground import stored_foregrounds
from datasets.names import printable
from datasets.problems import count
from datasets.regions import Polygons, find_region, read_region
from datasets.sizes import height_width
from datasets.view import View
from utils.data.check import KnownLevels, Splits
from utils.data.decoded_files import DecodedFiles
from utils.data.image_store import ImageStore
from utils.detection.rates import shortage
from utils.detection.test_set import TestSet, find_lost_regions, warn_of_lost_regions
from utils.system.errors import UsageError
from utils.system.processes import World
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig


class Split(NamedTuple):
    """The samples of a category."""

    train: list[Sample]
    calibration: list[Sample]  # of the training samples, where thresholds are set by them
    test: list[Sample]


Samples = dict[str, Split]  # of each category
TEXTURES, CALIBRATION = ("textures",), "calibration"  # groups of files; no category is a tuple


def split_samples(
    parts: Splits, category: str, config: TrainConfig, digests: Mapping[Path, str] | None = None
) -> Split:
    """A category's samples, a share of the training samples held out where `calibration` asks for it.

    digests: of the training images. Copies of an image that is held out are left out, which stderr says.
    """
    train, test = parts["train"], parts["test"]
    if not config.calibration:
        return Split(train, [], test)
    words = [(digests or {}).get(path) or str(path) for path in paths_of(train)]
    try:
        kept, calibration = hold_out(train, config.calibration, CALIBRATION_SEED, words)
    except DataError as error:
        raise UsageError(f"`calibration` {config.calibration}: {category}: {error}") from error
    if copies := len(train) - len(kept) - len(calibration):
        print(f"{category}: {count(copies, 'image')} left out, being copies of held out ones", file=sys.stderr)
    return Split(kept, calibration, test)


def warn_of_shortage(samples: Samples, config: TrainConfig) -> None:
    """Say on stderr where the images of `calibration` are too few for `far`."""
    for category, split in samples.items():
        if split.calibration and (text := shortage(len(split.calibration), config.far)):
            print(printable(f"warning: {category}: --calibration {config.calibration}: {text}"), file=sys.stderr)


def check_batches(samples: Samples, config: TrainConfig, world: World) -> None:
    """UsageError for a batch of one image of 32 pixels: the student's coarsest level is then a single position, from
    which batch norm cannot learn. The same is true of a process's share, unless norms are synchronised."""
    if height_width(config.image_size) != (32, 32):
        return
    for category, split in samples.items():
        count = len(split.train) * config.windows
        if (count - 1) % config.batch_size == 0:
            raise UsageError(
                f"{category} has {count} images: with `batch_size` {config.batch_size} the last batch is a single "
                "one, too little for `image_size` 32; choose another `batch_size` or a larger `image_size`"
            )
        batches = {min(config.batch_size, count), count % config.batch_size}
        if not config.sync_norms and any(1 in world.shares(batch) for batch in batches):
            raise UsageError(
                f"{category} has {count} images: with `batch_size` {config.batch_size} a process's share of a batch is "
                "a single one, too little for `image_size` 32; use `sync_norms`"
            )


def read_data(
    source: DataSource, samples: Samples, levels: KnownLevels, textures: list[Path], config: TrainConfig,
    decoded: DecodedFiles,
) -> Callable[[str], TrainingSet]:
    """Read every file, those of the test set too, so that a broken one is an error now and not hours later; returns the
    training set of a category. decoded: files that the check has opened, which are given back."""
    store = ImageStore(config.image_size, config.workers, config.cache, config.cache_dir, decoded)
    views = find_views(store, source, samples, levels, config)
    groups = {TEXTURES: [texture_files(textures)]}
    groups |= files_to_train(source, samples, config, views)
    groups |= {(CALIBRATION, c): [image_files(paths_of(split.calibration), views[c])] for c, split in samples.items()}
    tests = {("test", c): evaluation_files(split.test, views[c]) for c, split in samples.items()}
    if config.eval_every:
        stacks = store.open(groups | tests)
        sizes = {category: view.map_size(config.image_size) for category, view in views.items()}
        warn_of_lost_regions({
            category: find_lost_regions(split.test, sizes[category], config.workers, decoded.mask)
            for category, split in samples.items()
        }, sizes)
    else:
        stacks = store.open(groups, unused=[files for group in tests.values() for files in group])

    decoded.drop()
    textures_read = stacks(TEXTURES)  # once, not in each category's turn

    def training_set(category: str) -> TrainingSet:
        split, view = samples[category], views[category]
        paths = paths_of(split.train)
        [images], [calibration] = map(stacks, (category, (CALIBRATION, category)))
        test_set, anomalies = None, {}
        if config.eval_every and split.test:
            test_set = TestSet.of(split.test, stacks(("test", category)), view)
        if config.traits.amplified:
            stored = stored_foregrounds(paths, source.name, category, config.fg_root)
            anomalies = {"textures": textures_read[0], "made": len(paths) - len(stored)}
        return TrainingSet(
            images, paths, **anomalies, view=view, test_set=test_set, calibration=calibration,
            calibration_paths=paths_of(split.calibration),
        )

    return training_set


def files_to_train(
    source: DataSource, samples: Samples, config: TrainConfig, views: Mapping[str, View]
) -> dict[str, list[Files]]:
    """The files of each category's training samples, with foregrounds where anomalies are made."""
    paths = {category: paths_of(split.train) for category, split in samples.items()}
    if not config.traits.amplified:
        return {c: [image_files(paths[c], views[c])] for c in samples}
    return {c: [training_files(paths[c], source.name, c, config.fg_root, views[c])] for c in samples}


def find_views(
    store: ImageStore, source: DataSource, samples: Samples, levels: KnownLevels, config: TrainConfig
) -> dict[str, View]:
    """Views of the categories that the models are shown, by their training images."""
    recipe = config.traits
    regions = find_regions(config.roi, samples)
    if not recipe.own_view:
        return {c: View.whole(levels[c], config.tiles, regions[c]) for c in samples}
    whole = {category: View(levels=levels[category]) for category in samples}
    stacks = store.open(files_to_train(source, samples, config, whole), last=False)
    return {c: View.of(*stacks(c), recipe.crop, recipe.stretch, levels[c], config.tiles, regions[c]) for c in samples}


def find_regions(path: Path | None, categories: Iterable[str]) -> dict[str, Polygons]:
    """The region of interest of each category; an empty one where there is no `path`, which is a file for all of them
    or a folder of files."""
    return {category: read_region(find_region(path, category)) if path else () for category in categories}
