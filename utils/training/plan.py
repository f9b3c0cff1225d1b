"""What is to be trained: the flags, with what they come to on these data, and the data."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

from datasets import DataSource, open_dataset
from datasets.anomalies.textures import find_aux_path
from datasets.base import DataError
from datasets.pairing import SPLITS
from datasets.problems import count
from datasets.sizes import height_width, in_words
from models import WeightsError
from utils.data.check import levels_given
from utils.data.facts import Facts
from utils.data.preflight import Usable, usable_samples
from utils.runs.settings import PLANNED
from utils.system.environment import code_version, environment
from utils.system.errors import as_flags, command, layout_flags
from utils.training.config import TrainConfig
from utils.training.data import Samples, find_regions, split_samples

SMALLER = 3  # times that photographs are larger than what is shown, before windows are advised
HALVED, MOST_ADVISED = 2, 6  # windows are advised that show half of the resolution, and so many in a row


@dataclass(frozen=True)
class Plan:
    """The settings and data that all seeds of a run share."""

    config: TrainConfig
    source: DataSource
    samples: Samples
    usable: Usable
    planned_from: dict[str, float] | None = None  # with a time limit: it, and the epochs asked for

    def settings(self, seed: int) -> dict[str, Any]:
        """All that config.json keeps: the flags, what they come to here, and when."""
        return self.config.settings() | {
            "seed": seed,
            "data_root": str(self.source.root.resolve()),
            "dataset": self.source.name,
            "categories": list(self.source.categories),
            "processes": self.config.world.size,
            "skipped": self.usable.skipped,
            **({"planned_from": self.planned_from} if self.planned_from else {}),
            "command": self.config.command,
            "started": datetime.now().isoformat(timespec="seconds"),
            "code": code_version(),
            "environment": environment(),
        }

    @classmethod
    def of(cls, config: TrainConfig) -> Plan:
        """Look at the flags and the data; nothing is written."""
        source = open_dataset(config.data_root, config.dataset, config.categories, config.good, config.bad)
        find_regions(config.roi, source.categories)  # one that cannot be read is an error now
        if config.traits.amplified and not config.aux_path:
            with offering_preset(source):
                config = replace(config, aux_path=str(find_aux_path(config.data_root)))
        usable = usable_samples(
            source, SPLITS, workers=config.workers, cache_dir=config.cache_dir, skip_bad=config.skip_bad,
            levels=levels_given(config.white_level, source.categories),
            test_needed=bool(config.eval_every or config.seeds),  # several seeds are scored at the end
        )
        digests = {path: facts.digest for path, facts in usable.images.items()}
        config = fit(config, min(len(parts["train"]) for parts in usable.samples.values()))
        if not source.reader.CATEGORIES and (text := advise_windows(usable.images.values(), config)):
            print(as_flags(text), file=sys.stderr)
        samples = {name: split_samples(parts, name, config, digests) for name, parts in usable.samples.items()}
        return cls(config, source, samples, usable, planned_from(config))


@contextmanager
def offering_preset(source: DataSource) -> Iterator[None]:
    """Add the command for photographs of one's own to errors of what must be downloaded; public data need another."""
    try:
        yield
    except (DataError, WeightsError) as error:
        if source.reader.CATEGORIES:
            raise
        names = layout_flags(source.name, source.names.good, source.names.bad) if source.names.good else []
        offer = command("train.py", "--data_root", source.root, "--preset", "own", *names)
        raise type(error)(f"{error}; for photographs of your own, without any download: {offer}") from error


def advise_windows(images: Iterable[Facts], config: TrainConfig) -> str:
    """What photographs lose that are shown far smaller than they are, and the windows that help; "" for others, and
    where there are windows already."""
    sizes = [(facts.height, facts.width) for facts in images if facts.height]
    if config.windows > 1 or not sizes:
        return ""
    height, width = (median(sides) for sides in zip(*sizes, strict=True))
    high, wide = height_width(config.image_size)
    smaller = min(height / high, width / wide)
    if smaller < SMALLER:
        return ""
    rows, columns = (
        min(MOST_ADVISED, max(1, round(times / HALVED))) for times in (height / high, width / wide)
    )
    return (
        f"photographs of about {height:.0f} x {width:.0f} pixels are shown at {in_words(config.image_size)}, and "
        f"details of less than {round(2 * smaller)} pixels may be lost; `tiles` {rows} {columns} shows more, and takes "
        f"about {rows * columns} times as long"
    )


def fit(config: TrainConfig, images: int) -> TrainConfig:
    """The settings for the smallest category's number of good images; stderr says what they come to."""
    fitted = config.fit(images)
    if fitted != config:
        kept = round(fitted.calibration * images)
        epochs = f"{fitted.epochs_stage1} and {fitted.epochs_stage2} epochs"
        print(
            f"by {count(images, 'good image')}: {epochs}; {kept} kept out of training, to set the threshold for a "
            f"false-alarm rate of {fitted.far:.2g}", file=sys.stderr,
        )
    return fitted


def planned_from(config: TrainConfig) -> dict[str, float] | None:
    """What epochs are planned from, with a time limit; a memory is filled in one epoch, which stderr says."""
    if config.time_limit is None:
        return None
    if not config.traits.trained:
        print(f"--time_limit: {config.method} has a single epoch, so there are none to plan", file=sys.stderr)
        return None
    return {name: getattr(config, name) for name in ("time_limit", *PLANNED)}
