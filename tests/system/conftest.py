"""Files of others, and a run that may be changed."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def foreign(tmp_path):
    """foreign(path) puts a file of someone else there; at the end it must be as it was."""
    written = {}

    def write(path, content=b"of someone else"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written[path] = content
        return path

    yield write
    for path, content in written.items():
        assert path.read_bytes() == content, path


@pytest.fixture
def run(own, tmp_path):
    """A run folder that may be changed, and a working folder."""
    shutil.copytree(own.run, tmp_path / "run")
    return tmp_path / "run"
