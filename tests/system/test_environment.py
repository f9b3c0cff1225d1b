"""What results say of the machine and the code: versions, the commit, and no names of hosts, users or folders."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.system import environment as module
from utils.system.environment import code_version, environment

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def test_environment_is_plain_and_names_no_host():
    found = environment()
    assert {"python", "torch", "torchvision", "timm", "numpy", "system", "machine", "cores"} <= found.keys()
    assert found["numpy"] == np.__version__
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["cores"] >= 1
    text = json.dumps(found)
    assert os.path.expanduser("~") not in text
    assert not {os.uname().nodename, getpass.getuser()} & set(text.split('"'))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one file and no commit yet, that the code is taken to lie in."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # a hook's, say: of another repository
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "train.py").write_text("first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@needs_git
def test_commit_of_the_code(repository):
    assert code_version() == {}  # no commit
    git(repository, "add", "train.py")
    git(repository, "commit", "--quiet", "-m", "first")
    commit = git(repository, "log", "-1", "--format=%H").strip()
    assert len(commit) == 40
    assert code_version() == {"commit": commit, "changed": False}
    (repository / "notes.txt").write_text("not under version control")
    assert code_version() == {"commit": commit, "changed": False}
    (repository / "train.py").write_text("second")
    assert code_version() == {"commit": commit, "changed": True}
    git(repository, "commit", "--quiet", "-am", "second")
    assert code_version() == {"commit": git(repository, "log", "-1", "--format=%H").strip(), "changed": False}


@needs_git
def test_code_without_a_repository_of_its_own_has_no_version(repository, monkeypatch):
    git(repository, "add", "train.py")
    git(repository, "commit", "--quiet", "-m", "first")
    inside = repository / "vendored"
    inside.mkdir()
    monkeypatch.setattr(module, "ROOT", inside)  # an unpacked archive in somebody else's repository
    assert code_version() == {}
    monkeypatch.setattr(module, "ROOT", repository)
    monkeypatch.setenv("PATH", "")
    assert code_version() == {}  # no git


def test_versions_of_absent_packages_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package-here"))
    found = environment()
    assert "numpy" in found
    assert "no-such-package-here" not in found
    assert "torch" not in found
