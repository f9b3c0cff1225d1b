"""Checkpoints and weights of strangers: code in them never runs, nothing larger than the file is allocated, and every
program refuses them with one line."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models import WeightsError
from models.tensor_files import read_file
from tests.support.commands import TINY, Result, run_convert, run_process, run_test, run_train
from utils.runs.folder import Run
from utils.system.errors import CheckpointError
from utils.training.resumable import ResumableStage


class Bomb:
    """An object whose pickle, loaded carelessly, makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def rezipped(original: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with its entries changed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as before, zipfile.ZipFile(packed, "w", compression) as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    return packed.getvalue()


def with_pickle(original: bytes, pickled: bytes) -> bytes:
    """A file of torch.save with another pickle in it."""
    return rezipped(original, lambda name, content: pickled if name.endswith("data.pkl") else content)


@pytest.fixture
def original(tmp_path) -> bytes:
    torch.save({"a": torch.ones(3)}, tmp_path / "original.pt")
    return (tmp_path / "original.pt").read_bytes()


@pytest.fixture(params=["a pickle alone", "in a zip file", "in a zip file, protocol 4"])
def malicious(request, tmp_path, original) -> tuple[bytes, Path]:
    """A file that makes a folder, and that folder, which no program may have made at the end."""
    marker = tmp_path / "marker"
    code = pickle.dumps(Bomb(marker), protocol=4 if "4" in request.param else 2)
    pickle.loads(code)  # it would, wherever it is unpickled
    marker.rmdir()
    return code if request.param == "a pickle alone" else with_pickle(original, code), marker


def refuses(result: Result, path: Path, marker: Path | None = None) -> None:
    assert result.status == 2, result.out
    assert len(result.errors) == 1, result.err
    assert str(path) in result.errors[0]
    assert "Traceback" not in result.err
    assert marker is None or not marker.exists()


# Code


def test_code_in_a_file_is_named_and_not_run(malicious, tmp_path):
    content, marker = malicious
    (tmp_path / "file.pt").write_bytes(content)
    for legacy in (True, False):
        with pytest.raises(WeightsError, match=r"file\.pt: it (names|is no zip file)"):
            read_file(tmp_path / "file.pt", legacy)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["teacher.pt", "tile/stage1.pt", "tile/stage2.pt"])
def test_test_runs_no_code_of_a_checkpoint(trained, tmp_path, malicious, name):
    content, marker = malicious
    run = shutil.copytree(trained.aand, tmp_path / "run")
    path = run / "checkpoints" / name
    path.write_bytes(content)
    refuses(run_test(tmp_path, "--data_root", trained.data, "--run", run), path, marker)


@pytest.mark.parametrize("name", ["teacher.pt", "tile/stage1.pt", "tile/stage2.progress.pt"])
def test_train_runs_no_code_of_a_run_that_goes_on(trained, tmp_path, malicious, name):
    content, marker = malicious
    run = shutil.copytree(trained.aand, tmp_path / "run")
    Run(run).category("tile").stage(2).unlink()
    path = run / "checkpoints" / name
    path.write_bytes(content)
    options = (*TINY, "--aux_path", "builtin", "--output", run)
    result = run_train(trained.cwd, "--data_root", trained.data, *options)
    assert result.status in (1, 2)  # 1: of several categories, one could not be trained
    assert str(path) in result.out + result.err
    assert "Traceback" not in result.err
    assert not marker.exists()


def test_train_runs_no_code_of_weights(trained, tmp_path, malicious):
    content, marker = malicious
    (tmp_path / "weights.pth").write_bytes(content)
    options = (*TINY, "--weights", tmp_path / "weights.pth", "--aux_path", "builtin")
    refuses(run_train(tmp_path, "--data_root", trained.data, *options), tmp_path / "weights.pth", marker)
    assert not any(path.is_file() for path in (tmp_path / "runs").rglob("*"))


def test_convert_runs_no_code(tmp_path, malicious):
    content, marker = malicious
    path = tmp_path / "stage.pth"
    path.write_bytes(content)
    common = ("--run", tmp_path / "run", "--category", "tile")
    layout = ("--dataset", "mvtec", "--data_root", tmp_path)
    refuses(run_convert(tmp_path, "from_official", "--stage1", path, "--stage2", path, *layout, *common), path, marker)
    assert not (tmp_path / "run").exists()


def test_convert_runs_no_code_of_a_run(trained, tmp_path, malicious):
    content, marker = malicious
    run = shutil.copytree(trained.aand, tmp_path / "run")
    Run(run).teacher.write_bytes(content)
    result = run_convert(tmp_path, "to_official", "--output", tmp_path / "out", "--run", run, "--category", "tile")
    refuses(result, Run(run).teacher, marker)


def test_a_process_is_one_line_of_error(trained, tmp_path, original):
    path = tmp_path / "weights.pth"
    path.write_bytes(with_pickle(original, pickle.dumps(Bomb(tmp_path / "marker"), protocol=2)))
    options = (*TINY, "--weights", path, "--aux_path", "builtin")
    result = run_process(tmp_path, "train.py", "--data_root", trained.data, *options)
    assert result.status == 2
    module = os.mkdir.__module__
    expected = f"cannot read {path}: it names {module}.mkdir, more than tensors and plain values; nothing of it was run"
    assert result.errors == [f"error: {expected}"] and "Traceback" not in result.err
    assert not (tmp_path / "marker").exists()


# Memory

CALLS = {  # what a pickle can call where only torch decides, and how much it would take
    "bytearray": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "Tensor": b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.",
    "UntypedStorage": b"\x80\x02ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R.",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_only_takes_memory_is_not_called(tmp_path, original, name, legacy):
    (tmp_path / "file.pt").write_bytes(with_pickle(original, CALLS[name]))
    with pytest.raises(WeightsError, match=f"it names .*{name}, more than tensors"):
        read_file(tmp_path / "file.pt", legacy)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, original, compression):
    def inflate(name: str, content: bytes) -> bytes:
        return bytes(10_000_000) if "/data/" in name else content

    bomb = rezipped(original, inflate, compression)
    assert len(bomb) < 50_000
    (tmp_path / "file.pt").write_bytes(bomb)
    with pytest.raises(WeightsError, match="its entries are compressed"):
        read_file(tmp_path / "file.pt")


def test_a_size_that_the_file_does_not_have_is_refused(tmp_path, original):
    """The central directory's entry of the numbers: sizes of 2 GB, both of them."""
    size = (2**31).to_bytes(4, "little")
    start = original.rindex(b"PK\x01\x02", 0, original.rindex(b"/data/0"))
    (tmp_path / "file.pt").write_bytes(original[: start + 20] + 2 * size + original[start + 28 :])
    with pytest.raises(WeightsError, match="its entries claim to be larger than the file"):
        read_file(tmp_path / "file.pt")


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path, original):
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        [pickled] = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    assert pickled.count(b"K\x03") >= 2  # the storage's length, and the tensor's
    huge = pickled.replace(b"K\x03", b"J\xff\xff\xff\x7f")
    (tmp_path / "file.pt").write_bytes(with_pickle(original, huge))
    with pytest.raises(WeightsError, match="file.pt"):
        read_file(tmp_path / "file.pt")


def test_two_zip_files_in_one_and_names_twice_are_refused(tmp_path, original):
    (tmp_path / "file.pt").write_bytes(original + original)
    with pytest.raises(WeightsError, match="two zip files"):
        read_file(tmp_path / "file.pt")
    packed = io.BytesIO(original)
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    (tmp_path / "file.pt").write_bytes(packed.getvalue())
    with pytest.raises(WeightsError, match="a name twice"):
        read_file(tmp_path / "file.pt")


# Files that are not what they should be


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b"epoch 1\n", "it is no zip file"), (b"PK\x03\x04", "not a zip file")],
)
def test_what_is_no_file_of_tensors(tmp_path, content, reason):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"cannot read .*file\.pt: .*{reason}"):
        read_file(tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="cannot read .*: Is a directory"):
        read_file(tmp_path)


def test_another_zip_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("notes.txt", "no tensors")
    with pytest.raises(WeightsError, match="a zip file without tensors"):
        read_file(tmp_path / "other.pt")


def test_the_old_format_is_read_where_weights_are(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_file(path, legacy=True)["a"], torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(WeightsError, match="it is no zip file, as torch.save writes them"):
        read_file(path)
    torch.save({"a": Bomb(tmp_path / "marker")}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="it names .*mkdir"):
        read_file(path, legacy=True)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"epoch": "1"}, "its values are of other kinds"),
        ({"step": -1}, "its values are of other kinds"),
        ({"seconds": float("nan")}, "its values are of other kinds"),
        ({"notes": None}, "its values are of other kinds"),
        ({"identity": {"a": torch.zeros(2)}}, "cannot go on with something else"),
        ({"random": {}}, "has no random states"),
        ({"random": {"cpu": torch.zeros(3), "cuda": []}}, "has no random states"),
        ({"part": {"weight": torch.zeros(1)}}, "does not fit: part"),
        ({"part": 3}, "does not fit: part"),
        ({"optimizer": {"state": 3, "param_groups": [{}]}}, "does not fit: optimizer"),
    ],
)
def test_progress_with_other_values_is_refused(tmp_path, changed, reason):
    part = torch.nn.Linear(2, 3)
    progress = ResumableStage(tmp_path / "part.pt", {"part": part}, {"a": 1})
    progress.track(optimizer=torch.optim.Adam(part.parameters()))
    progress.save()
    torch.save(torch.load(tmp_path / "part.pt", weights_only=True) | changed, tmp_path / "part.pt")
    with pytest.raises(CheckpointError, match=rf"part\.pt.*{reason}"):
        again = ResumableStage(tmp_path / "part.pt", {"part": part}, {"a": 1})
        again.track(optimizer=torch.optim.Adam(part.parameters()))
