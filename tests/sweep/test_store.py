"""Files in a folder, in memory and on an S3 server: whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.clouds import CREDENTIALS, forbidding_server, lead_to
from utils.sweep.store import Store
from utils.system import packages
from utils.system.errors import MissingPackage, StoreError, UsageError


def test_files_come_back_and_are_listed_below_a_path(store, tmp_path):
    assert (store.read_json("a/none.json"), store.names(), store.names("a")) == (None, [], [])
    store.write_json("a/settings.json", {"lr": 0.005, "name": "é"})
    assert store.read_json("a/settings.json") == {"lr": 0.005, "name": "é"}
    store.write_json("a/settings.json", {"lr": 1})  # in its place
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    store.put(tmp_path / "file", "a/b/c")
    store.put(tmp_path / "file", "ab")
    assert store.names() == ["a/b/c", "a/settings.json", "ab"]
    assert store.names("a") == ["a/b/c", "a/settings.json"]
    store.get("a/b/c", tmp_path / "new/copy")
    assert (tmp_path / "new/copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert store.read_json("ab") is None  # no JSON
    store.remove(["a/b/c", "a/never.there"])
    assert store.names("a") == ["a/settings.json"]
    assert store.read_json("a/settings.json") == {"lr": 1}
    with pytest.raises(StoreError, match="cannot read .*/a/b/c"):
        store.get("a/b/c", tmp_path / "x")


def test_a_file_in_a_folder_is_seen_whole_or_not_at_all(tmp_path, monkeypatch):
    store = Store(str(tmp_path / "store"))
    store.write_json("x.json", {"a": 1})

    def half(source, target):
        Path(target).write_text('{"a":')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(StoreError, match="cannot write .*x.json.*No space left"):
        store.write_json("x.json", {"a": 2})
    assert store.read_json("x.json") == {"a": 1}
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["x.json"]


@pytest.mark.parametrize(("url", "message"), [
    ("foo://x", "`store` foo://x: .*foo"),
    ("s3://key:secret@bucket/x", "user or password"),
    ("s3://", "names no folder or bucket"),
])
def test_urls_that_cannot_be_used(url, message):
    with pytest.raises(UsageError, match=message) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch):
    def nothing(*arguments, **options):
        raise ImportError("Install s3fs to access S3")

    import fsspec.core

    monkeypatch.setattr(fsspec.core, "url_to_fs", nothing)
    with pytest.raises(MissingPackage, match=r"Install s3fs .*pip install -r requirements-cluster\.txt"):
        Store("s3://bucket/x")
    monkeypatch.setattr(packages, "import_module", nothing)
    with pytest.raises(MissingPackage, match=r"needs the package fsspec: pip install -r requirements-cluster\.txt"):
        Store("somewhere")


def test_a_bucket_that_is_not_there_and_one_that_is_closed(s3, tmp_path, monkeypatch):
    store = Store("s3://no-such-bucket/x")
    with pytest.raises(StoreError, match="cannot write s3://no-such-bucket/x/a.json: .*bucket does not exist"):
        store.write_json("a.json", {})
    with forbidding_server() as url:
        lead_to(url, monkeypatch)
        closed = Store("s3://bucket/x")
        for call in (lambda: closed.read_json("a"), lambda: closed.write_json("a", {}), lambda: closed.names()):
            with pytest.raises(StoreError, match="s3://bucket/x.*(Forbidden|Access Denied)") as caught:
                call()
            assert "\n" not in str(caught.value)
            assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    lead_to(s3, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="credentials"):
        Store("s3://bucket/x").write_json("a", {})
    lead_to(s3, monkeypatch)
