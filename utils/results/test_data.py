"""The test data of a trained run: which samples, and their files as its models are shown them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from datasets import DataSource, open_dataset
from datasets.base import DataError, Sample
from datasets.files import evaluation_files
from datasets.names import printable
from utils.data.decoded_files import DecodedFiles
from utils.data.image_store import ImageStore
from utils.data.preflight import Skipped, usable_samples
from utils.detection.test_set import TestSet
from utils.runs.folder import Run, open_runs, trained_categories
from utils.system.errors import RunError

Samples = Mapping[str, Sequence[Sample]]  # of each category


class TestData(NamedTuple):
    """A data set, the test samples of each category, and the files that were left out of them, with why."""

    source: DataSource
    samples: Samples
    skipped: Skipped
    decoded: DecodedFiles  # files that the check has opened


def open_test_data(
    run: Path, data_root: Path, *, categories: Sequence[str] | None, workers: int, cache_dir: Path, skip_bad: bool
) -> TestData:
    """Open the data set of a run, and check the test files of the categories asked for, or all that were trained.

    A trained category that is not in `data_root` is left out with a notice on stderr. Raises RunError for categories
    that the run has not trained, DataError for those without test images and for all errors in the test images.
    """
    trained, first = trained_categories(run), open_runs(run)[0]
    if not trained:
        raise RunError(f"{run} has no category yet that is trained")
    if untrained := [category for category in categories or [] if category not in trained]:
        raise RunError(f"{run} has no trained {', '.join(untrained)}; it has: {', '.join(trained)}")
    source = open_dataset(data_root, first.settings.dataset, categories or trained)
    if source.missing:
        print(printable(f"trained, but not in {data_root}: {', '.join(source.missing)}"), file=sys.stderr)
    # The training images are not checked: scoring needs none, and a copy among them was refused in training.
    levels = {category: first.category(category).view.levels for category in source.categories}
    usable = usable_samples(source, ["test"], workers=workers, cache_dir=cache_dir, skip_bad=skip_bad, levels=levels)
    samples = {category: parts["test"] for category, parts in usable.samples.items()}
    if empty := [category for category, tests in samples.items() if not tests]:
        raise DataError(f"no test images of {', '.join(empty)} in {source.root}; there is nothing to score")
    return TestData(source, samples, usable.skipped, usable.decoded)


def read_test_sets(runs: Sequence[Run], samples: Samples, store: ImageStore) -> Callable[[str], TestSet]:
    """Read the files of all categories as the models of `runs` are shown them; the result gives a category's test set.

    Raises RunError if the seeds are not shown the same, DataError listing the files that cannot be read.
    """
    first = {category: runs[0].category(category) for category in samples}
    views = {category: files.view for category, files in first.items()}
    for files in (run.category(category) for run, category in product(runs[1:], samples)):
        if files.view != views[files.name]:
            other = first[files.name].view_file
            raise RunError(f"{files.view_file} differs from {other}: the seeds were not trained alike")
    stacks = store.open({category: evaluation_files(tests, views[category]) for category, tests in samples.items()})
    store.decoded.drop("image")
    return lambda category: TestSet.of(samples[category], stacks(category), views[category])
