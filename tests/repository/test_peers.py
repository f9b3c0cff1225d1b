"""benchmarks/peers.py: its tables from records written by hand, its order, what it repeats and what not, and a
measurement of ours. Those of anomalib: test_peers_anomalib.py."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peer_files import FIGURES, time_file
from benchmarks.peer_methods import METHODS
from benchmarks.peers import Job, schedule
from datasets.base import DataError
from tests.repository.test_benchmarks import call, tables
from tests.support.commands import ROOT
from tests.support.trees import make_mvtec
from utils.system.errors import MissingPackage, RunError, TrainingError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"image_size": 256, "epochs": None, "weights": "random", "repetitions": 50, "threads": 2}
HEAVY = ("torch", "torchvision", "anomalib", "lightning", "timm")


def record(method: str, seed: int = 0, category: str = "bottle", **changed) -> dict:
    """A record whose figures follow from the seed."""
    accuracy = {"image_auroc": 0.90 + seed / 50, "pixel_auroc": 0.95, "aupro": 0.80}
    return {
        "category": category, "method": method, "seed": seed, "settings": SETTINGS, "environment": {"cpu": "Z80"},
        "load": 0.5 + seed, "epochs": "1", "metrics": accuracy, "reading_s": 1.0, "fitting_s": 10.0 + 2 * seed,
        "fitting_gb": 1.5, "model_mb": 44.7, "torch_ms": 20.0, "file_ms": 8.0, "file_images_s": 250.0, "file_gb": 0.25,
        **changed,
    }


def write(output: Path, *records: dict) -> Path:
    for one in records:
        path = Job(one["category"], one["method"], one["seed"]).path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one))
    return output


def options(output: Path, **changed) -> Namespace:
    """What the program is given, for one category of generated images."""
    data = make_mvtec(output / "data/mvtec", size=32).parent
    chosen = {"output": output / "out", "data_root": data, "categories": ["mvtec/bottle"], "aux_path": "builtin"}
    methods = {"methods": ["ours-rd4ad", "ours-patchcore"], "seeds": [0, 1]}
    return Namespace(**SETTINGS | chosen | methods | changed)


def test_tables_have_mean_and_spread_over_seeds(monkeypatch, capsys, tmp_path):
    clamped = {"image_auroc": 0.88, "pixel_auroc": 0.94, "aupro": 0.79}
    write(
        tmp_path, record("ours-rd4ad", 0), record("ours-rd4ad", 1), record("anomalib-padim", clamped=clamped),
        record("ours-rd4ad", category="pill", epochs="20", metrics={"image_auroc": 0.5}, file_ms=None,
               file_error="not run: no"),
    )
    printed = call(peers, monkeypatch, capsys, "--output", tmp_path, "--print")
    accuracy, cost, raw, pill, pill_cost = tables(printed)
    assert accuracy == [
        ["method", "teacher", "epochs", "seeds", "I-AUROC", "P-AUROC", "PRO"],
        ["PaDiM, anomalib", "resnet18", "1", "1", "90.00", "95.00", "80.00"],
        ["RD4AD, ours", "resnet18", "1", "2", "91.00 ± 1.41", "95.00 ± 0.00", "80.00 ± 0.00"],
    ]
    assert cost[2][2:5] == ["1.0 ± 0.0", "11.0 ± 1.4", "1.50 ± 0.00"]
    assert raw[1:] == [["PaDiM, anomalib", "resnet18", "90.00", "88.00", "95.00", "94.00", "80.00", "79.00"]]
    assert pill[1] == ["RD4AD, ours", "resnet18", "20", "1", "50.00", "–", "–"]
    assert pill_cost[1][7] == "–"
    assert "at most 1.5.\nNo file of RD4AD, ours: not run: no\n" in printed and "Not one run" not in printed


def test_figures_of_two_machines_are_said_to_be(monkeypatch, capsys, tmp_path):
    write(tmp_path, record("ours-rd4ad"), record("ours-rd4ad", 1, environment={"cpu": "6502"}))
    printed = call(peers, monkeypatch, capsys, "--output", tmp_path, "--print")
    assert "Not one run: 2 environments or settings.\ncpu Z80, image_size 256" in printed


def test_printing_needs_neither_torch_nor_anomalib(tmp_path):
    write(tmp_path, record("anomalib-draem"))
    code = f"import sys; sys.argv = ['peers.py', '--output', {str(tmp_path)!r}, '--print']; " \
           f"from benchmarks import peers; peers.main(); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "DRAEM, anomalib | – |" in done.stdout


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps(record("ours-rd4ad") | {"method": "other"})])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "bottle").mkdir()
    (tmp_path / "bottle/x.json").write_text(content)
    with pytest.raises(RunError, match="x.json is no measurement"):
        peers.read_records(tmp_path)


def test_a_folder_without_measurements(tmp_path):
    with pytest.raises(RunError, match="holds no measurement"):
        peers.read_records(tmp_path)


def test_the_order_is_rotated_by_repetition():
    jobs = list(schedule(["a", "b"], ["x", "y", "z"], [7, 8]))
    assert [job.method for job in jobs] == [*"xyzxyz", *"yzxyzx"]
    assert [job.category for job in jobs] == [*"aaabbb"] * 2
    assert [job.seed for job in jobs] == 6 * [7] + 6 * [8]


def test_measurements_that_are_there_are_not_repeated(monkeypatch, tmp_path):
    wanted = options(tmp_path)
    kept = write(wanted.output, record("ours-rd4ad", fitting_s=99.0)) / "bottle/ours-rd4ad-seed0.json"
    measured = []

    def measure(job: Job, given: Namespace) -> dict:
        measured.append((job.method, job.seed))
        return record(job.method, job.seed)

    monkeypatch.setattr(peers, "measure", measure)
    peers.measure_all(wanted)
    assert measured == [("ours-patchcore", 0), ("ours-patchcore", 1), ("ours-rd4ad", 1)]
    assert json.loads(kept.read_text())["fitting_s"] == 99
    measured.clear()
    peers.measure_all(wanted)
    assert not measured
    with pytest.raises(UsageError, match=r"ours-rd4ad-seed0.json was measured with other settings .*`output`"):
        peers.measure_all(options(tmp_path, image_size=64))


def test_a_failure_costs_no_other_method(monkeypatch, tmp_path):
    wanted = options(tmp_path, seeds=[0])

    def measure(job: Job, given: Namespace) -> dict:
        if job.method == "ours-rd4ad":
            raise TrainingError("out of memory")
        return record(job.method)

    monkeypatch.setattr(peers, "measure", measure)
    with pytest.raises(TrainingError, match="1 measurements failed"):
        peers.measure_all(wanted)
    assert [one["method"] for one in peers.read_records(wanted.output)] == ["ours-patchcore"]


def test_a_process_that_fails_is_named_with_its_last_line(tmp_path):
    wanted = options(tmp_path, image_size=64, weights=tmp_path / "none.pth")
    with pytest.raises(TrainingError, match=r"ours-rd4ad-seed0: --fit ended with 2: error: --weights .*none.pth.*log"):
        peers.measure(Job("mvtec/bottle", "ours-rd4ad", 0), wanted)


def test_what_is_missing_is_said_at_once(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="`weights` no.pth: no such file"):
        peers.measure_all(options(tmp_path, weights="no.pth"))
    with pytest.raises(DataError, match="no texture folder"):
        peers.measure_all(options(tmp_path, methods=["ours-robust"], aux_path=None))
    with pytest.raises(DataError, match="unknown category 'cable_'"):
        peers.measure_all(options(tmp_path, categories=["mvtec/bottle", "mvtec/cable_"]))
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    with pytest.raises(UsageError, match="`aux_path` builtin: anomalib's DRAEM"):
        peers.measure_all(options(tmp_path, methods=["anomalib-draem"]))
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "anomalib" else name)
    with pytest.raises(MissingPackage, match="pip install -r requirements-peers.txt"):
        peers.measure_all(options(tmp_path, methods=["anomalib-padim"]))


def test_a_file_that_cannot_be_run_costs_its_own_figures_alone(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "model.xml").write_text("<net/>")
    (tmp_path / "result.json").write_text(json.dumps({"torch_ms": 7.0, "file": "model.xml"}))
    np.savez(tmp_path / "probe.npz", images=np.zeros((2, 32, 32, 3), np.uint8), scores=np.ones(2))
    time_file(Namespace(threads=1, repetitions=1), "anomalib-padim", tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result.pop("file_error").startswith("not run: ") and result.pop("torch_ms") == 7
    assert result == dict.fromkeys(FIGURES)


def test_ours_is_measured_from_images_to_record(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    wanted = options(tmp_path, image_size=64, repetitions=2, threads=1, epochs=1)
    found = peers.measure(Job("mvtec/bottle", "ours-robust", 0), wanted)
    assert found["epochs"] == "1 + 1" and "clamped" not in found and "file" not in found
    assert set(found["metrics"]) >= {"image_auroc", "pixel_auroc", "aupro"}
    assert found["file_difference"] < 1e-3
    assert 0.05 < found["file_gb"] < found["fitting_gb"] < 10  # no torch where the file is timed
    assert found["model_mb"] > 60  # of the trunk, 11, and the student of its size and more
    assert peers.read_record(write(tmp_path, found) / "bottle/ours-robust-seed0.json") == found


def test_methods_are_named_after_their_library():
    assert {name.partition("-")[0] for name in METHODS} == {"anomalib", "ours"}
