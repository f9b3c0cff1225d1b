"""Threads that compute: their number, and how they wait, before torch is imported and after."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.commands import ROOT
from utils.system.threads import FEW_SPINS, spin_briefly, threads_to_use, use_threads


@pytest.mark.parametrize(("environment", "spins"), [
    ({}, FEW_SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None),
])
def test_threads_spin_briefly_unless_the_environment_says_otherwise(monkeypatch, environment, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spin_briefly()
    import os

    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_a_number_of_threads_is_used_from_now_on(monkeypatch):
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads_to_use() == 5
    try:
        use_threads(before + 1)
        assert torch.get_num_threads() == before + 1 == threads_to_use()
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # of nested loops
    assert threads_to_use() == 0


def test_a_program_sets_both_before_it_imports_torch():
    code = (
        "import os, sys; sys.argv = ['train.py', '--data_root', 'nowhere', '--threads', '1']\n"
        "import train; flags = train.parse_args(); assert 'torch' not in sys.modules\n"
        f"assert os.environ['OMP_NUM_THREADS'] == '1' and os.environ['GOMP_SPINCOUNT'] == '{FEW_SPINS}'\n"
        "assert not hasattr(flags, 'threads'); import torch; assert torch.get_num_threads() == 1"
    )
    environment = {"PATH": "", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, timeout=120)
