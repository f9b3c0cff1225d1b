"""Damaged and hostile inputs, made by hypothesis: python -m tests.support.fuzzing KIND [FACTOR] feeds one kind of them
to the programs' own functions, and prints what it took as JSON. tests/programs/test_fuzzing.py says what must hold.

With a FACTOR there are so many times the inputs, drawn anew each time; without, always the same ones.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from benchmarks.memory import process_peak
from datasets import open_dataset
from datasets.base import DataError
from datasets.view import View
from tests.support.damage import altered, fuzz, mutated, nothing_else_written
from tests.support.fuzzing_images import fuzz_folders, fuzz_images, fuzz_structures
from tests.support.trees import make_mvtec, make_visa

ROOT = Path(__file__).parents[2]
CONFIG = {
    "method": "aand", "recipe": "robust", "backbone": "efficientnet_lite0", "image_size": 32, "dataset": "mvtec",
    "data_root": "/data", "command": "python train.py --data_root data", "started": "2024-01-01T00:00:00", "seed": 0,
    "select": "last", "epochs_stage1": 2, "epochs_stage2": 2, "code": {"commit": "0123456789", "changed": False},
}
RECORDS = [{"category": "tile", "stage": 2, "epoch": e, "loss": 0.5, "image_auroc": 0.75} for e in (1, 2)]


def fuzz_lists(folder: Path) -> int:
    """Damaged and hostile meta.json and split_csv/1cls.csv of a VisA data set."""
    root = make_visa(folder / "visa", meta=True)
    meta = (root / "meta.json").read_bytes()
    (root / "meta.json").unlink()
    make_visa(root)
    table = (root / "split_csv/1cls.csv").read_bytes()
    (root / "split_csv/1cls.csv").unlink()

    def read_damaged_list(name: str, content: bytes) -> None:
        path = root / name
        path.write_bytes(content)
        try:
            source = open_dataset(root)
            for category in source.categories:
                for split in ("train", "test"):
                    for sample in source.samples(category, split):
                        assert sample.image_path.resolve().is_relative_to(root.resolve())
        except DataError as error:
            assert str(error)
        finally:
            path.unlink()

    with nothing_else_written(folder, root):
        calls = fuzz("lists", {"name": st.just("meta.json"), "content": mutated([meta]) | altered(json.loads(meta))},
                     read_damaged_list, 0.5)
        names = {"name": st.just("split_csv/1cls.csv"), "content": mutated([table])}
        return calls + fuzz("lists", names, read_damaged_list, 0.5)


def fuzz_runs(folder: Path) -> int:
    """Damaged and hostile config.json, view.json, metrics.jsonl and results.json of a run folder."""
    from tests.support.comparison_cases import scored
    from utils.metrics import METRICS
    from utils.results.comparison import compare, read_runs
    from utils.results.comparison_report import format_text, write_csv, write_json, write_markdown
    from utils.runs.folder import Run, newest_run, trained_categories
    from utils.runs.history import published_protocol
    from utils.runs.settings import read_config
    from utils.system.errors import RunError

    run = folder / "runs" / "run"
    (run / "checkpoints/tile").mkdir(parents=True)
    (run / "checkpoints/tile/stage2.pt").touch()
    results = scored(0, {"tile": {"image_auroc": 0.5, "aupro": 0.25}}, gains={"tile": 0.125})
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "checkpoints/tile/view.json": json.dumps(asdict(View(top=0.25))).encode(),
        "metrics.jsonl": b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS),
        "results.json": json.dumps(results).encode(),
    }
    contents = {name: mutated([whole]) for name, whole in files.items()}
    contents["metrics.jsonl"] |= st.lists(st.sampled_from(RECORDS).flatmap(altered), max_size=3).map(b"\n".join)
    for name in sorted(files.keys() - {"metrics.jsonl"}):
        contents[name] |= altered(json.loads(files[name]))
    other = folder / "other"
    other.mkdir()
    (other / "results.json").write_bytes(files["results.json"])
    maps, image = np.zeros((1, 32, 32), np.float32), np.zeros((5, 7, 3), np.uint8)

    def read_damaged_run(name: str, data: st.DataObject) -> None:
        for file, whole in files.items():
            (run / file).write_bytes(whole)
        (run / name).write_bytes(data.draw(contents[name]))
        try:
            newest_run(folder, run.parent)
        except RunError as error:
            assert str(error)
        try:
            assert 32 <= read_config(run)["image_size"] <= 4096
            view = Run(run).category("tile").view
            view.show(image, 32)
            view.place(maps)
            json.dumps(published_protocol(run), allow_nan=False)
            assert trained_categories(run) == ["tile"]
            found = compare(read_runs([run, other]), METRICS)
            format_text(found)
            for write, suffix in ((write_markdown, "md"), (write_csv, "csv"), (write_json, "json")):
                write(run / f"out.{suffix}", found)
        except RunError as error:
            assert str(run) in str(error) or "no category in common" in str(error)

    with nothing_else_written(folder, run):
        return fuzz("runs", {"name": st.sampled_from(sorted(files)), "data": st.data()}, read_damaged_run)


def fuzz_checkpoints(folder: Path) -> int:
    """Damaged and hostile files of a trained category: of all their bytes, and of the pickle in them alone."""
    import torch
    from torch import nn

    from models import WeightsError
    from models.tensor_files import read_file
    from utils.runs.checkpoint import load_checkpoint, save_checkpoint
    from utils.system.errors import CheckpointError

    run, path = folder / "run", folder / "run" / "part.pt"
    wanted = {"method": "aand", "backbone": "resnet18", "image_size": 32}
    save_checkpoint(path, {"part": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))}, wanted, 1.0, "tile")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    [pickled] = [name for name in entries if name.endswith("data.pkl")]
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    legacy = path.read_bytes()

    def zipped(content: bytes) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, original in entries.items():
                archive.writestr(name, content if name == pickled else original)
        return packed.getvalue()

    def load_damaged_checkpoint(content: bytes) -> None:
        path.write_bytes(content)
        part = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        try:
            assert 0 <= load_checkpoint(path, {"part": part}, wanted, "tile") < float("inf")
            assert all(torch.isfinite(tensor).all() for tensor in part.state_dict().values())
        except CheckpointError as error:
            assert str(path) in str(error)
        try:
            read_file(path, legacy=True)
        except WeightsError as error:
            assert str(path) in str(error)

    with nothing_else_written(folder, run):
        strategy = mutated([whole, legacy]) | mutated([entries[pickled]]).map(zipped)
        return fuzz("checkpoints", {"content": strategy}, load_damaged_checkpoint)


def fuzz_commands(folder: Path) -> int:
    """Random flags of train.py and test.py, on data that is not there, or cannot be read to its end."""
    import timm  # noqa: F401  the first call must not wait for it

    import test
    import train
    import utils.training.run  # noqa: F401
    from utils.cli import run_command

    place = folder / "place"  # so that .. is in the folder too
    make_mvtec(place / "data", ["tile"], train=1)
    (place / "data/tile/test/good/000.png").write_bytes(b"no image")
    (place / "empty").mkdir()
    numbers = ["0", "1", "-1", "32", "4096", "4128", "9" * 30, "nan", "inf", "1e999", "1_0", "\u0663"]
    words = [
        "auto", "cpu", "cuda:99", "meta", "mkldnn", "tpu", "ram", "none", "aand", "rd4ad", "robust", "synthetic",
        "builtin", "random", "bundled", "~no-such-user/x", "..", "data", "empty", "absent", "tile", "a" * 300, "", "--",
    ]
    letters = st.characters(exclude_characters="\0/\\~", exclude_categories=["Cs"])  # no folder outside of this one
    values = st.integers().map(str) | st.sampled_from(numbers + words) | st.text(letters, max_size=6)
    test_flags = (
        "--run --categories --save_maps --resolution --mvtec_maps --batch_size --device --cache --workers --skip_bad "
        "--help"
    )
    flags = {
        "train.py": [option for action in train.make_parser()._actions for option in action.option_strings],
        "test.py": test_flags.split(),
    }
    flags["train.py"].remove("--data_root")
    flags["train.py"].remove("--cache_dir")  # where what is known of files may be written
    small = ["--weights", "random", "--backbone", "efficientnet_lite0", "--aux_path", "builtin", "--image_size", "32"]
    drawn_flags = {name: st.lists(st.tuples(st.sampled_from(f), values), max_size=4) for name, f in flags.items()}

    def call_with_any_flags(program: str, root: str, data: st.DataObject) -> None:
        drawn = [word for pair in data.draw(drawn_flags[program]) for word in pair]
        last = small if program == "train.py" and root == "data" else []  # nothing is downloaded, and it is quick
        module, parse = {
            "train.py": (train, train.parse_args), "test.py": (test, lambda: test.make_parser().parse_args())
        }[program]
        shown = io.StringIO()
        with mock.patch.object(sys, "argv", [program, "--data_root", root, *drawn, *last]):
            try:
                with redirect_stdout(shown), redirect_stderr(shown):
                    run_command(lambda: module.main(parse()))
            except SystemExit as stop:
                assert stop.code in (0, 1, 2), stop.code
        assert "Traceback" not in shown.getvalue()

    roots = st.sampled_from(["absent", "empty", "data", "data/tile/test/good/000.png"])
    os.chdir(place)
    with nothing_else_written(folder, place / "runs", place / "cache"):
        return fuzz(
            "commands", {"program": st.sampled_from(sorted(flags)), "root": roots, "data": st.data()},
            call_with_any_flags,
        )


KINDS = {
    "images": fuzz_images, "structures": fuzz_structures, "folders": fuzz_folders, "lists": fuzz_lists,
    "runs": fuzz_runs, "checkpoints": fuzz_checkpoints, "commands": fuzz_commands,
}


def main() -> None:
    warnings.simplefilter("ignore")  # of Pillow about damaged files
    folder = Path(tempfile.mkdtemp())
    try:
        inputs = KINDS[sys.argv[1]](folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"inputs": inputs, "peak": process_peak()}))


if __name__ == "__main__":
    main()
