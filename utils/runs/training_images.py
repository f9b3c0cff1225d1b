"""Which images a category was trained on, by what is in them: kept in the run, since images by which thresholds are set
must be others, whatever their files are called.

    keep_training_images(run, "bottle", digests_of(paths, workers, cache_dir).values())
    read_training_images(run, "bottle")                     # the digests; None of runs from before
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.plain_json import read_json
from utils.data.facts import MADE_BY, FactStore
from utils.runs.folder import training_images_path
from utils.runs.settings import describe
from utils.system.errors import RunError
from utils.system.files import in_parallel, write_text


def digests_of(paths: Sequence[Path], workers: int, cache_dir: Path) -> dict[Path, str]:
    """What the images are, by their decoded values; "" of those that cannot be read. Those that `cache_dir` knows are
    not opened."""
    facts = FactStore(cache_dir)
    found = in_parallel(lambda path: facts.of_image(path).digest, paths, workers)
    return dict(zip(paths, found, strict=True))


def keep_training_images(run: Path, category: str, digests: Iterable[str]) -> None:
    """Add to the images of a category's training; a run that goes on keeps those of before."""
    known = read_training_images(run, category) or set()
    content = {"made_by": MADE_BY, "category": category, "digests": sorted(known | set(digests))}
    if known != set(content["digests"]):
        write_text(training_images_path(run, category), json.dumps(content, indent=1) + "\n")


def read_training_images(run: Path, category: str) -> set[str] | None:
    """The digests of a category's training images; None where they are not known, or of what decodes otherwise.

    Raises RunError for a file that cannot be read, or is of another category; earlier ones do not say of which.
    """
    path = training_images_path(run, category)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        digests = content["digests"]
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise ValueError("its digests are no list of texts")
        if content.get("category", category) != category:
            raise ValueError(f"it is of the category {describe(content['category'])}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error!r}); restore it, or delete it") from error
    return set(digests) if content.get("made_by") == MADE_BY else None
