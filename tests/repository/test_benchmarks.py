"""The benchmark programs at tiny settings: what they count, and that their tables hold what they say; nothing is timed
to be compared."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import end_to_end, scaling, speed
from benchmarks.limits import Convolution, ConvolutionLimit, count_flops, trunk_convolutions
from benchmarks.memory import process_peak
from datasets import open_dataset
from datasets.base import load_image, load_mask
from tests.support.trees import make_folder
from utils.system.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ("--backbones", "efficientnet_lite0", "--image_size", 64, "--device", "cpu")


def call(program, patch, capsys, *arguments) -> str:
    """What a benchmark's main prints."""
    patch.setattr(sys, "argv", [program.__file__, *map(str, arguments)])
    program.main()
    return capsys.readouterr().out


def tables(printed: str) -> list[list[list[str]]]:
    """The cells of each Markdown table, its heading first; all rows must be as long as that."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", printed, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        assert {len(row) for row in rows} == {len(rows[0])}, block
        assert set(rows[1]) == {"---"}
        found.append([rows[0], *rows[2:]])
    return found


def first_number(cell: str) -> float:
    return float(re.match(r"[\d.]+", cell)[0])


def test_flops_of_one_convolution_by_hand():
    images, weight = torch.randn(2, 3, 8, 6), torch.randn(5, 3, 3, 3, requires_grad=True)
    forward = 2 * 2 * 3 * 5 * 9 * 8 * 6
    assert count_flops(lambda: F.conv2d(images, weight, padding=1)) == forward
    assert Convolution(3, 5, 3, 8, 6).flops * 2 == forward
    # the gradient of the weight takes as many again, and nobody asks for that of the images
    assert count_flops(lambda: F.conv2d(images, weight, padding=1).sum().backward()) == 2 * forward


def test_convolutions_of_a_trunk_by_hand():
    # ResNet-18's blocks at 64 px: 64 channels of 16x16, 128 of 8x8, 256 of 4x4; the first of a level has stride 2
    expected = {Convolution(64, 64, 3, 16, 16), Convolution(128, 128, 3, 8, 8), Convolution(256, 256, 3, 4, 4)}
    assert set(trunk_convolutions("resnet18", 64)) == expected
    wide = trunk_convolutions("wide_resnet50_2", 64)
    assert {(c.channels_in, c.kernel) for c in wide} >= {(128, 3), (256, 3), (512, 3), (1024, 1)}


def test_the_limit_computes_what_it_says():
    limit = ConvolutionLimit("resnet18", 32, batch=2, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert limit.flops == count_flops(limit) == 2 * 3 * (2 * 64 * 64 * 9 * 8 * 8)  # each level halves 2^2, doubles 2^2


def test_speed(monkeypatch, capsys, tmp_path):
    arguments = (*TINY, "--batch_size", 2, "--repetitions", 2, "--json", tmp_path / "speed.json")
    printed = call(speed, monkeypatch, capsys, *arguments)
    training, synthesis, evaluation = tables(printed)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert f"torch {content['environment']['torch']}" in printed
    assert "threads 1" in printed
    assert [row[:2] for row in training[1:]] == [["efficientnet_lite0", "I"], ["efficientnet_lite0", "II"]]
    assert [row[0] for row in synthesis[1:]] == ["in batches (2)"]
    assert [row[0] for row in evaluation[1:]] == ["efficientnet_lite0"]
    assert all(first_number(cell) > 0 for cell in evaluation[1][1:])
    assert [len(content[name]) for name in ("training", "synthesis", "evaluation")] == [2, 1, 1]
    for cells, row in zip(training[1:], content["training"], strict=True):
        assert first_number(cells[2]) == pytest.approx(row["plain"]["median"], abs=0.006)
        assert row["ratio"] == pytest.approx(row["default"]["median"] / row["plain"]["median"])
        assert row["gflop_s"] == pytest.approx(row["gflop_an_image"] * row["default"]["median"])
        assert row["share_of_limit"] == pytest.approx(row["gflop_s"] / row["limit_gflop_s"])
        assert 0 < row["share_of_limit"] < 2
        assert row["data_share"] > 0
        for speeds in (row["plain"], row["default"]):
            assert 0 < speeds["slowest"] <= speeds["median"] <= speeds["fastest"]


def test_memory_is_that_of_a_process_for_each_case(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(speed, "MEMORY_CASES", {"stage2_ram": "kept"})
    settings = {"image_size": 64, "batch_size": 2, "device": "cpu", "memory_images": 3, "memory_textures": 50_000}
    peaks = speed.report_memory(Namespace(backbones=["efficientnet_lite0"], **settings))
    assert tables(capsys.readouterr().out)[0][1:] == [["kept", f"{peaks['stage2_ram']:.2f}"]]
    assert 50_000 * 3 * 64**2 / 1e9 < peaks["stage2_ram"] < 4  # the textures alone take 0.6


def test_peak_of_a_process_is_linux_high_water_mark(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  1234 kB\nVmRSS:\t  1000 kB\n")
    assert process_peak(status) == 1234 * 1024
    assert process_peak(tmp_path / "missing") > 1e7


def test_scaling(monkeypatch, capsys, tmp_path):
    varied = ("--vary_images", 4, 8, "--vary_image_size", 64, 96, "--vary_batch_size", 2, 4)
    arguments = (*TINY, "--images", 4, "--batch_size", 2, *varied, "--repetitions", 1, "--plot", tmp_path / "plot.svg")
    [[heading, *rows]] = tables(call(scaling, monkeypatch, capsys, *arguments))
    settings = [tuple(row[:4]) for row in rows[::2]]
    assert settings == [
        ("images", "4", "64", "2"), ("images", "8", "64", "2"), ("image_size", "4", "64", "2"),
        ("image_size", "4", "96", "2"), ("batch_size", "4", "64", "2"), ("batch_size", "4", "64", "4"),
    ]
    assert [row[4] for row in rows] == ["I", "II"] * 6
    first = heading.index(scaling.PARTS[0])
    for row in rows:
        shares = [first_number(cell) for cell in row[first : first + len(scaling.PARTS)]]
        assert sum(shares) == pytest.approx(100, abs=0.3)
        assert row[first + len(shares)] == scaling.PARTS[int(np.argmax(shares))]
        assert (shares[1] > 0) == (row[4] == "I")  # Stage II has the teacher's features
    drawn = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert all(f">{label}<" in drawn for label in (*scaling.AXES.values(), *scaling.PARTS, "Stage II: s an epoch"))


class Clock:
    """Time that passes only where the test lets it."""

    def __init__(self):
        self.now = 0

    def perf_counter(self) -> int:
        return self.now

    def before(self, seconds: int, function):
        def call(*arguments, **options):
            self.now += seconds
            return function(*arguments, **options)

        return call


def test_parts_of_a_step_are_what_takes_their_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(scaling, "time", clock)
    trainer = scaling.Trainer("efficientnet_lite0", 64, 2, scaling.Execution(), torch.device("cpu"), keep=False)
    steps = scaling.Steps(trainer, scaling.Setting(images=4, image_size=64, batch_size=2))
    for kind in (steps.anomalies, steps.features):
        monkeypatch.setattr(kind, "epoch", clock.before(1, kind.epoch))
    trainer.model.pretrained.trunk.register_forward_pre_hook(clock.before(10, lambda *_: None))
    trainer.model.teacher.amplification[2].gate.register_forward_pre_hook(clock.before(100, lambda *_: None))
    trainer.model.decoder.register_forward_pre_hook(clock.before(100, lambda *_: None))
    for optimizer in (trainer.first, trainer.second):
        monkeypatch.setattr(optimizer, "step", clock.before(1000, optimizer.step))
    for _ in range(2):
        assert steps.first() == {"data": 1, "teacher": 10, "forward": 100, "backward": 1000}
        assert steps.second() == {"data": 1, "teacher": 0, "forward": 100, "backward": 1000}
    assert steps.compute_features() == 110  # the trunk, and the amplification


def test_scaling_makes_whole_batches_only(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(scaling, monkeypatch, capsys, *TINY, "--vary_images", 8, "--vary_batch_size", 16)
    assert "8 images are less than a batch" in capsys.readouterr().err


def test_epochs_are_the_median_step_times_the_steps(monkeypatch):
    taken = iter([9.0, 3.0, 1.0, 2.0])  # the warm-up's does not count
    monkeypatch.setattr(scaling.Steps, "first", lambda self: dict.fromkeys(scaling.PARTS, next(taken)))
    setting = scaling.Setting(images=6, image_size=64, batch_size=4)
    epochs = scaling.measure("efficientnet_lite0", [setting], 3, torch.device("cpu"))
    assert epochs[setting].parts["I"] == dict.fromkeys(scaling.PARTS, 1.5 * 2)


def test_end_to_end(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = make_folder(tmp_path / "data", size=48, suffix=".jpg")
    output = tmp_path / "output"
    arguments = ("--data_root", data, "--category", "widget", "--aux_path", "builtin", "--backbone",
                 "efficientnet_lite0", "--weights", "random", "--image_size", 64, "--epochs", 1, "--source_size", 96,
                 "--output", output)
    [[heading, *rows]] = tables(call(end_to_end, monkeypatch, capsys, *arguments))
    content = json.loads((output / "end_to_end.json").read_text())
    assert [row[0] for row in rows] == ["plain", "default", "plain / default"]
    assert heading[-3:] == ["I-AUROC", "P-AUROC", "PRO"]
    for cells, row in zip(rows, content["runs"], strict=False):
        assert row["total"] == pytest.approx(sum(row["seconds"].values()))
        assert cells[5] == f"{row['total']:.1f}"
        results = json.loads((output / f"{row['mode']}-seed0/run/results.json").read_text())
        assert cells[6] == f"{100 * results['categories']['widget']['image_auroc']:.2f}"
        config = json.loads((output / f"{row['mode']}-seed0/run/config.json").read_text())
        assert config["plain"] == (row["mode"] == "plain")
    plain, default = content["runs"]
    assert content["ratios"]["total"] == pytest.approx(plain["total"] / default["total"])
    with Image.open(output / "data/widget/train/good/000.jpg") as image:
        assert (image.size, image.format) == ((96, 96), "JPEG")
    with pytest.raises(UsageError, match="is not empty"):
        end_to_end.main()


def test_enlarged_copies_are_the_same_pictures(tmp_path):
    root = make_folder(tmp_path / "data", size=32)
    samples = open_dataset(root).samples("widget", "test")
    end_to_end.copy_enlarged(samples, root, tmp_path / "copy", 64)
    copies = open_dataset(make_trainable(tmp_path / "copy")).samples("widget", "test")
    assert [copy.name for copy in copies] == [sample.name for sample in samples]
    for copy, sample in zip(copies, samples, strict=True):
        assert load_image(copy.image_path).shape == (64, 64, 3)
        difference = load_image(copy.image_path, 32).astype(int) - load_image(sample.image_path)
        assert np.abs(difference).mean() < 8
        if sample.mask_path:
            mask = load_mask(sample.mask_path)
            assert np.array_equal(load_mask(copy.mask_path), mask.repeat(2, axis=0).repeat(2, axis=1))


def make_trainable(root: Path) -> Path:
    """A copy of test samples alone is no category yet."""
    (root / "widget/train/good").mkdir(parents=True)
    return root


def test_ratios_are_of_medians_over_the_seeds():
    def run(mode: str, seconds: float) -> dict:
        return {"mode": mode, "seconds": dict.fromkeys(end_to_end.PROGRAMS, seconds), "total": 3 * seconds}

    runs = [run("plain", seconds) for seconds in (9, 6, 60)] + [run("default", seconds) for seconds in (3, 1, 2)]
    assert end_to_end.find_ratios(runs) == dict.fromkeys((*end_to_end.PROGRAMS, "total"), 4.5)
    assert end_to_end.find_ratios(runs[:3]) == {}
