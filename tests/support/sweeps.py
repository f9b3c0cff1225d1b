"""Tasks for tests of sweeps."""

from __future__ import annotations

from utils.sweep.plan import Task


def task(name: str, image_epochs: int = 10, method: str = "aand") -> Task:
    return Task("/data", "data", name, method, 0, image_epochs, (), ())
