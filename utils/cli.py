"""Argument types and flags that several programs share, and errors as one line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from datasets import DATASETS
from datasets.base import DataError
from datasets.names import PrintableError, is_utf8, printable
from models import MAX_IMAGE_SIZE, WeightsError
from utils.system.errors import UsageError, UserError, as_flags
from utils.system.signals import Interrupted, exit_on_signals
from utils.system.streams import READER_GONE, ReaderGone, silenced, standard_streams
from utils.system.threads import spin_briefly, use_threads

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)  # threads; more wait for the disk
CACHES = ("ram", "disk", "none")
MAX_SEED = 2**63 - 1  # of torch's generators
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class CommandParser(argparse.ArgumentParser):
    """A program's flags, never abbreviated unless asked for: what is wrong with them is one line, whatever characters
    were given. The description is printed as it is written. Programs make it before they import torch."""

    def __init__(self, allow_abbrev: bool = False, **options: Any):
        spin_briefly()
        options = {"formatter_class": argparse.RawDescriptionHelpFormatter} | options
        super().__init__(allow_abbrev=allow_abbrev, **options)

    def error(self, message: str) -> NoReturn:
        super().error(printable(as_flags(message)))


def words_of_file(parser: argparse.ArgumentParser, path: Path, ignored: Collection[str] = ()) -> list[str]:
    """The flags in a YAML or JSON file of names and values, as words of a command line. Those without a value (null,
    false, an empty list) and those `ignored` are left out. Raises UsageError for names that are no flags, and for what
    is no such file; OSError if it cannot be read."""
    import yaml  # late: few calls have such a file

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no lines of `name: value`")
    known = {action.dest: action for action in parser._actions if action.option_strings and action.dest != "help"}
    words = []
    for name, value in content.items():
        flag = str(name).removeprefix("--").replace("-", "_")
        if flag in ignored:
            continue
        if flag not in known or flag in ("config", "resume"):
            near = get_close_matches(flag, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{path}: {name!r} is no flag of {parser.prog}{hint}")
        if "on" in (known[flag].choices or ()) and isinstance(value, bool):  # as YAML reads on and off
            value = "on" if value else "off"
        if value in (None, False, [], ""):
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        if any(isinstance(one, list | dict) for one in values) or (value is True) != (known[flag].nargs == 0):
            raise UsageError(f"{path}: {name}: {value!r} is no value of --{flag}")
        words += [f"--{flag}={values[0]}"] if len(values) == 1 else [f"--{flag}", *map(str, values)]
    return words


def at_least(lowest: int, highest: int = sys.maxsize) -> Callable[[str], int]:
    """An argparse type: a whole number in lowest..highest."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        if value > highest:
            raise argparse.ArgumentTypeError(f"{value} is above {highest}")
        return value

    return parse


def user_path(text: str) -> Path:
    """An argparse type: a path, ~ being the home folder however the shell passed it."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def number(text: str, above: float = float("-inf")) -> float:
    """An argparse type: a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not above < value < float("inf"):  # NaN fails too
        least = f" above {above:g}" if above > float("-inf") else ""
        raise argparse.ArgumentTypeError(f"{value} is not a finite number{least}")
    return value


positive = partial(number, above=0)


def share(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{value} is not below 1")
    return value


def share_or_none(text: str) -> float:
    """An argparse type: 0, or a number above it and below 1."""
    return 0.0 if text.strip() in ("0", "0.0") else share(text)


def or_auto(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type: `auto`, which becomes None, or what another type takes."""
    return lambda text: None if text == "auto" else kind(text)


def image_size(text: str) -> int:
    """An argparse type: a positive multiple of 32, the student's coarsest stride."""
    value = at_least(32, MAX_IMAGE_SIZE)(text)
    if value % 32:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of 32 (try {value // 32 * 32})")
    return value


class Threads(argparse.Action):
    """A number of threads, used at once."""

    def __call__(self, parser, namespace, values, option_string=None):
        use_threads(values)


class OneOrTwo(argparse.Action):
    """One number for both, or height and width, or rows and columns."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2:
            parser.error(f"argument {option_string}: one number, or two")
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


def add_model_flags(parser: argparse.ArgumentParser, purpose: str = "used") -> None:
    """Add the flags of one model of a run: --category, --seed."""
    add = parser.add_argument
    add("--category", metavar="NAME", help=f"category whose model is {purpose} (default: the run's only one)")
    add("--seed", type=at_least(0, MAX_SEED), metavar="N", help="of a run with several seeds (default: the first)")


def add_size_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image_size", type=image_size, metavar="N", help="pixels: of a run its own and no other, of "
                        "the public code's checkpoints those that they were trained at (default: the run's, or 256)")


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of running trained models over data sets: --batch_size, --device, and those of reading."""
    add_computing_flags(parser)
    add_reading_flags(parser)


def add_computing_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of running trained models: --batch_size, --device, --threads."""
    add = parser.add_argument
    add("--batch_size", type=at_least(1), default=16, metavar="N", help="images at a time (default 16)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (default auto)")
    add_threads_flag(parser)


def add_threads_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=at_least(1), action=Threads, metavar="N",
                        help="threads that compute on a CPU (default: one per core, or OMP_NUM_THREADS)")


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of reading and keeping image files: --cache, --cache_dir, --workers, --skip_bad."""
    add = parser.add_argument
    add("--cache", choices=CACHES, default="ram", help="where decoded images stay: in memory, in memory-mapped files "
        "that later runs and other processes share, or nowhere (default ram)")
    add_file_flags(parser)
    add("--skip_bad", action="store_true", help="go on without the images that have errors, and record which; list "
        "them with scripts/check_data.py")


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of checking the files of a data set: --cache_dir, --workers."""
    add = parser.add_argument
    add("--cache_dir", type=user_path, default=Path("cache"), metavar="DIR", help="folder of checks.json, what is "
        "known of files that were checked, and of --cache disk; may be deleted at any time (default cache)")
    add_workers_flag(parser)


def add_layout_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what lies where in a data set: --dataset, --good, --bad."""
    add = parser.add_argument
    add("--dataset", choices=["auto", *DATASETS], default="auto", help="layout of the data (auto: decided by looking)")
    add("--good", nargs="+", default=[], metavar="NAME", help="folders of good photographs, by name or path below the "
        "data, where they have names of their own; . is the data's folder itself (default: by their names, e.g. ok)")
    add("--bad", nargs="+", default=[], metavar="NAME", help="folders of other photographs (default: all that are "
        "beside good ones)")


def add_level_flag(parser: argparse.ArgumentParser) -> None:
    """Add --white_level, the meaning of the values of deep images."""
    parser.add_argument("--white_level", type=positive, metavar="X", help="pixel value that is white in 16-bit, 32-bit "
                        "and float images that do not say (default: the training images' range decides)")


def add_look_flag(parser: argparse.ArgumentParser) -> None:
    """Add --look, the rate of a third verdict."""
    parser.add_argument("--look", type=share, metavar="X", help="share of good images that may be called more than "
                        "good, those between it and --far being images to look at (default: what was set, or none)")


def add_workers_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=at_least(1), default=DEFAULT_WORKERS, metavar="N", help="threads that read "
                        "files (default: one per core, at most 8)")


@contextmanager
def first_alone_heard() -> Iterator[None]:
    """Let one of the processes that torchrun starts on a machine say what is wrong with the flags that all have."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    try:
        with silenced():
            yield
    except SystemExit as end:
        if end.code:
            time.sleep(5)  # torchrun ends all when one ends: the first must have spoken
        raise


def run_command(main: Callable[[], None]) -> None:
    """Run a program: errors that its user can mend become one line on stderr and exit status 2.

    Those are UserError, DataError, WeightsError and OSError; any other is a defect and is shown whole. Arguments that
    their messages name are printed as flags. SIGINT and SIGTERM end the program with the shell's exit status for them,
    130 and 143; a reader of its output that is gone ends it silently, with 141.
    """
    exit_on_signals()
    with standard_streams():
        try:
            for argument in sys.argv:
                if not is_utf8(argument):
                    raise UsageError(f"{argument!r} is not UTF-8, and could not be written to a run's files; rename it")
            _run_and_flush(main)
        except ReaderGone:
            sys.exit(READER_GONE)
        except (UserError, DataError, WeightsError, OSError) as error:
            text = str(error) if isinstance(error, PrintableError) else printable(str(error))
            print("error:", as_flags(text), file=sys.stderr)
            sys.exit(2)
        except Interrupted as interrupted:
            print("stopped", file=sys.stderr)
            sys.exit(interrupted.exit_status)


def _run_and_flush(main: Callable[[], None]) -> None:
    try:
        main()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
