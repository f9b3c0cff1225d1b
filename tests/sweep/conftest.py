"""Stores of each kind, for tests of sweeps."""

from __future__ import annotations

import pytest

from tests.support.clouds import s3_server
from utils.sweep.store import Store


@pytest.fixture(scope="module")
def s3():
    pytest.importorskip("s3fs")
    with s3_server() as url:
        yield url


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path) -> Store:
    """An empty store."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    name = tmp_path.name.replace("[", "-").replace("]", "")
    url = {"folder": str(tmp_path / "store"), "memory": f"memory://{name}", "s3": f"s3://bucket/{name}"}
    return Store(url[request.param])
