"""Number formats, memory, optimiser and layout: what is chosen where, and that results are those of plain code."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from models.teacher import build_teacher
from tests.support.commands import ROOT
from tests.support.norms import count_norms, noise, randomise_norms
from utils.system import device as devices
from utils.system import memory
from utils.system.device import cpu_has_bf16, near, resolve_precision
from utils.system.errors import UsageError
from utils.system.memory import available_memory, glibc
from utils.training import steps
from utils.training.execution import PLAIN, Execution
from utils.training.steps import Optimizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
RATE = 0.01
ADAM = {"lr": RATE, "betas": (0.5, 0.999)}


# Number formats


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse avx512f avx512_bf16 amx_tile", True),
        ("fpu avx512f amx_bf16 amx_tile", True),
        ("fp asimd bf16 i8mm", True),
        ("fpu sse avx2 avx512f avx512_vnni", False),
        ("fpu avx512_bf16x xavx512_bf16 svebf16", False),  # whole words alone
    ],
)
def test_the_processors_flags_tell_whether_it_has_bf16(tmp_path, flags, expected):
    path = tmp_path / "cpuinfo"
    path.write_bytes(f"processor\t: 0\nmodel name\t: \xff\nflags\t\t: {flags}\nbogomips\t: 1\n".encode("latin-1"))
    assert cpu_has_bf16(path) is expected
    assert cpu_has_bf16(tmp_path / "absent") is False


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch, has_bf16):
    asked = []
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or has_bf16)
    expected = "bf16" if has_bf16 else "fp32"
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", CUDA) == expected
    assert asked == [{"including_emulation": False}]
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_is_given_stays(monkeypatch, precision):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: precision == "fp32")
    assert resolve_precision(precision, CPU) == precision
    assert resolve_precision("fp16", CUDA) == "fp16"


def test_fp16_needs_cuda():
    with pytest.raises(UsageError, match="^`precision` fp16 needs a CUDA device, not cpu; use auto, bf16 or fp32$"):
        resolve_precision("fp16", CPU)


@pytest.mark.filterwarnings("error")  # PyTorch warns of an autocast to float32
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_is_for_the_short_formats_alone(precision, dtype):
    how = Execution(precision=precision)
    assert how.dtype == dtype
    conv = nn.Conv2d(3, 3, 1)
    with how.autocast(CPU):
        assert torch.is_autocast_enabled("cpu") == (precision != "fp32")
        assert conv(torch.zeros(1, 3, 4, 4)).dtype == dtype
    assert not torch.is_autocast_enabled("cpu")


def test_plain_has_nothing_that_makes_it_fast():
    assert Execution(
        precision="fp32", channels_last=False, fold_norms=False, fused_optimizer=False, compile=False
    ) == PLAIN
    assert (PLAIN.memory_format, Execution().memory_format) == (torch.contiguous_format, torch.channels_last)
    assert not Execution().compile


# Memory


@pytest.mark.parametrize(
    ("limit", "used", "free", "expected"),
    [
        ("5000\n", "2000\n", 9000, 3000),
        ("5000\n", "2000\n", 1000, 1000),
        ("5000\n", "6000\n", 9000, 0),
        ("max\n", "2000\n", 9000, 9000),
        (None, None, 9000, 9000),
    ],
)
def test_a_control_groups_limit_is_considered(tmp_path, monkeypatch, limit, used, free, expected):
    group = tmp_path / "cgroup"
    if limit:
        group.mkdir()
        (group / "memory.max").write_text(limit)
        (group / "memory.current").write_text(used)
    monkeypatch.setattr(memory, "CGROUP", group)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free, total=10**6))
    assert available_memory(CPU) == expected


def test_cuda_memory_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {CUDA: (70, 80)}[device])
    assert available_memory(CUDA) == 70


def test_stacks_stay_where_they_are_without_cuda():
    stack = torch.zeros(2, 3)
    assert near(stack, CPU) is stack


# Optimiser


def adam_by_hand(weights: list[float], gradients: list[list[float]], lr: float, betas: tuple[float, float]):
    """Kingma & Ba, algorithm 1, in Python's float64; epsilon 1e-8."""
    first, second = [0.0] * len(weights), [0.0] * len(weights)
    for step, gradient in enumerate(gradients, start=1):
        for i, g in enumerate(gradient):
            first[i] = betas[0] * first[i] + (1 - betas[0]) * g
            second[i] = betas[1] * second[i] + (1 - betas[1]) * g * g
            mean, square = first[i] / (1 - betas[0] ** step), second[i] / (1 - betas[1] ** step)
            weights[i] -= lr * mean / (square**0.5 + 1e-8)
    return weights


@pytest.mark.parametrize("how", [Execution(), Execution(fused_optimizer=False), PLAIN])
def test_steps_are_adams(how):
    weights = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = Optimizer([weights], lr=RATE, execution=how, device=CPU)
    assert optimizer.adam.defaults["fused"] == how.fused_optimizer
    gradients = [[0.5, -3.0, 0.0], [-0.1, 2.0, 1e-3], [4.0, 0.3, -1.0]]
    for gradient in gradients:
        optimizer.step((weights * torch.tensor(gradient)).sum())
        assert weights.grad is None  # it needs no memory while the next step is computed
    expected = adam_by_hand([1.0, -2.0, 3.0], gradients, **ADAM)
    torch.testing.assert_close(weights.detach(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_fused_steps_equal_unfused_ones():
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    results = []
    for fused in (True, False):
        network = copy.deepcopy(start)
        optimizer = Optimizer(network.parameters(), lr=RATE, execution=Execution(fused_optimizer=fused), device=CPU)
        for _ in range(10):
            optimizer.step((network(inputs) - 1).square().mean())
        results.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    before = torch.cat([parameter.detach().flatten() for parameter in start.parameters()])
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)
    assert (results[0] - before).abs().median() > 0.05


def test_only_fp16_scales_its_gradients():
    for precision in ("fp32", "bf16", "fp16"):
        optimizer = Optimizer([nn.Parameter(torch.ones(1))], lr=RATE, execution=Execution(precision), device=CPU)
        assert optimizer.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize("fused", [True, False])
def test_scaled_gradients_give_the_same_steps(fused):
    weights = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Optimizer([weights], lr=RATE, execution=Execution("fp16", fused_optimizer=fused), device=CPU)
    gradients = [[0.5, -3.0], [-0.1, 2.0]]
    for gradient in gradients:
        optimizer.step((weights * torch.tensor(gradient)).sum())
    expected = adam_by_hand([1.0, -2.0], gradients, **ADAM)
    torch.testing.assert_close(weights.detach(), torch.tensor(expected), rtol=0, atol=1e-6)
    optimizer.step((weights * float("inf")).sum())  # a step that overflows is left out
    torch.testing.assert_close(weights.detach(), torch.tensor(expected), rtol=0, atol=1e-6)


# The teacher


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("how", [Execution(), Execution(fold_norms=False), PLAIN])
@pytest.mark.usefixtures("one_thread")
def test_a_prepared_teacher_gives_the_same_features(backbone, how):
    torch.manual_seed(0)
    teacher = build_teacher(backbone, "random")
    randomise_norms(teacher.trunk)
    expected, norms = teacher(noise()), count_norms(teacher)
    how.prepare_teacher(teacher)
    for level, right in zip(teacher(noise()), expected, strict=True):
        assert (level - right).norm() <= 1e-5 * right.norm()
    assert count_norms(teacher) == (0 if how.fold_norms else norms)
    wide = [p for p in teacher.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]  # where the layouts differ
    assert wide
    for parameter in wide:
        assert parameter.is_contiguous(memory_format=how.memory_format)
        assert not parameter.requires_grad


@pytest.mark.skipif(glibc() is None, reason="memory is kept and released with glibc alone")
def test_freed_memory_is_kept_until_it_is_released():
    program = """
import psutil
from utils.system.memory import keep_freed_memory, release_freed_memory
resident = lambda: psutil.Process().memory_info().rss // 2**20  # MiB
keep_freed_memory()
before = resident()
blocks = [bytearray(2**20) for _ in range(300)]
del blocks
kept = resident()
release_freed_memory()
print(kept - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    kept, left = map(int, done.stdout.split())
    assert kept > 250 and left < 50


def test_an_optimizer_releases_memory_before_and_after_its_first_step(monkeypatch):
    calls = []
    monkeypatch.setattr(steps, "release_freed_memory", lambda: calls.append("released"))
    weight = nn.Parameter(torch.ones(2))
    optimizer = Optimizer([weight], 0.1, PLAIN, CPU)
    for step in range(3):
        calls.append(step)
        optimizer.step(weight.sum())
    assert calls == ["released", 0, "released", 1, 2]
