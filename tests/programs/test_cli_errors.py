"""Wrong calls of both programs: exit status 2, one line that names what is wrong, and nothing is written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from datasets.foreground import fg_mask_path
from tests.support.broken import cut
from tests.support.commands import ROOT, TINY, listing, run_process, run_test, run_train
from tests.support.trees import make_mvtec, write_image

DEFAULTS = [value for pair in zip(TINY[::2], TINY[1::2], strict=True) if pair[0] != "--weights" for value in pair]


@pytest.fixture
def data(tmp_path):
    return make_mvtec(tmp_path / "data", ["bottle", "tile"], train=4)


@pytest.fixture
def refused(tmp_path, data):
    """refused(*options, expect=[...]) calls train.py, which must fail with these texts on stderr; returns stderr."""

    def call(*options, expect, run=run_train, root=data):
        (tmp_path / "cache").mkdir(exist_ok=True)
        before = listing(tmp_path)
        result = run(tmp_path, "--data_root", root, *options)
        assert result.status == 2, result.out
        assert len(result.errors) == 1, result.err
        assert "Traceback" not in result.err
        for text in expect:
            assert str(text) in result.err
        (tmp_path / "cache/checks.json").unlink(missing_ok=True)  # what is known of files is all that may be written
        assert listing(tmp_path) == before
        return result.err

    return call


TRAIN = [*TINY, "--aux_path", "builtin"]
WITH_TEST = [*TRAIN, "--eval_every", 1]  # without, errors of test files alone are warnings


# The data


def test_wrong_root(refused, tmp_path):
    refused(*TRAIN, root=tmp_path / "absent", expect=[f"{tmp_path / 'absent'} does not exist"])
    refused(*TRAIN, root=tmp_path / "data/bottle", expect=[f"did you mean {tmp_path / 'data'}?"])
    refused(root=tmp_path / "absent", expect=[f"{tmp_path / 'absent'} does not exist"], run=run_test)


def test_a_process_fails_the_same_way(refused, tmp_path):
    err = refused(*TRAIN, root=tmp_path / "absent", expect=["does not exist"], run=in_process("train.py"))
    assert err.count("\n") == 1


@pytest.mark.parametrize("program", ["train.py", "test.py", "scripts/predict.py"])
def test_wrong_paths_are_told_before_torch_is_imported(tmp_path, program):
    """Which takes seconds: of a program that needs it the imports are listed by Python."""
    wrong = ["absent", "x.png"] if "predict" in program else ["--data_root", "absent"]
    command = [sys.executable, "-X", "importtime", ROOT / program, *wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "error: absent " in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith(" torch")]


def in_process(program):
    return lambda cwd, *arguments: run_process(cwd, program, *arguments)


@pytest.mark.parametrize("split", ["train/good", "test"])
def test_empty_split(refused, data, split):
    for path in (data / "tile" / split).rglob("*.png"):
        path.unlink()
    shutil.rmtree(data / "tile/ground_truth")
    refused(*TRAIN, expect=[f"no {split.split('/')[0]}", data / "tile"])


def test_mask_without_image_and_image_without_mask(refused, data):
    mask = data / "tile/ground_truth/crack/001_mask.png"
    mask.unlink()
    refused(*WITH_TEST, expect=[f"image has no mask: {data / 'tile/test/crack/001.png'}"])
    stray = write_image(mask.with_name("777_mask.png"), np.zeros((32, 32), np.uint8))
    refused(*WITH_TEST, expect=[f"mask has no image: {stray}"])


@pytest.mark.parametrize("name", ["train/good/002", "test/good/001", "test/hole/000", "ground_truth/hole/000_mask"])
def test_unreadable_image_or_mask(refused, data, name):
    refused(*WITH_TEST, expect=[cut(data / "tile" / f"{name}.png")])


def test_unreadable_texture(refused, tmp_path):
    for number in range(3):
        write_image(tmp_path / f"dtd/{number}.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    refused(*TINY, "--aux_path", "dtd", expect=[cut(tmp_path / "dtd/1.png").relative_to(tmp_path)])


def test_unreadable_foreground(refused, tmp_path, data):
    path = fg_mask_path(tmp_path / "fg_mask", "mvtec", "tile", data / "tile/train/good/003.png")
    write_image(path, np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8))
    refused(*TRAIN, expect=[cut(path).relative_to(tmp_path)])


def test_foreground_of_another_size(refused, tmp_path, data):
    path = fg_mask_path(tmp_path / "fg_mask", "mvtec", "tile", data / "tile/train/good/003.png")
    write_image(path, np.zeros((8, 8), np.uint8))
    refused(*TRAIN, expect=[path.relative_to(tmp_path), "8x8 pixels"])


def test_unreadable_test_image(refused, trained, tmp_path, data):
    shutil.copytree(trained.rd4ad, tmp_path / "run")
    path = cut(data / "tile/test/good/001.png")
    refused("--run", "run", expect=[path], run=run_test)


def test_unknown_category(refused, trained, tmp_path):
    refused(*TRAIN, "--categories", "tile", "teapot", expect=["unknown category 'teapot'", "has: bottle, tile"])
    shutil.copytree(trained.rd4ad, tmp_path / "run")
    expect = ["has no trained teapot; it has: bottle, tile"]
    refused("--run", "run", "--categories", "teapot", expect=expect, run=run_test)


def test_no_textures_beside_the_data(refused, tmp_path):
    places = [tmp_path / name for name in ("dtd/images", "DRAEM_dtd/dtd/images")]
    refused(*TINY, expect=[*places, "--aux_path DTD_IMAGES", "--aux_path builtin"])
    refused(*TINY, "--aux_path", "absent", expect=["no texture folder absent", "builtin"])


# The flags


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--image_size 100", "100 is not a multiple of 32 (try 96)"),
        ("--image_size 0", "0 is below 32"),
        ("--image_size 4128", "4128 is above 4096"),
        (f"--seed {2**63}", f"{2**63} is above {2**63 - 1}"),
        (f"--seeds 0 {10**30}", f"{10**30} is above"),
        ("--device meta", "--device meta cannot be used"),
        ("--data_root ~no-such-user/data", "'~no-such-user/data': Could not determine home directory"),
        ("--image_size big", "'big' is not a whole number"),
        ("--batch_size 0", "0 is below 1"),
        ("--epochs_stage1 0", "0 is below 1"),
        ("--lr 0", "0.0 is not a finite number above 0"),
        ("--lr -1", "-1.0 is not a finite number above 0"),
        ("--lr nan", "nan is not a finite number above 0"),
        ("--lr fast", "'fast' is not a number"),
        ("--seed -1", "-1 is below 0"),
        ("--seeds 0 -1", "-1 is below 0"),
        ("--seeds", "expected at least one argument"),
        ("--method simplenet", "'simplenet'"),
        ("--dataset coco", "'coco'"),
        ("--device tpu9", "tpu9"),
        ("--epoch 3", "--epoch"),
        ("--backbone vgg16", "unknown --backbone vgg16; choose one of wide_resnet50_2, resnet18"),
        ("--backbone timm:nothing", "timm:nothing"),
        ("--weights absent.pth", "--weights absent.pth: no such file"),
        ("--backbone resnet18 --weights bundled", "efficientnet_lite2 come bundled, not resnet18"),
    ],
)
def test_flags(refused, option, expected):
    refused(*TRAIN, *option.split(), expect=[expected])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_last_batch_of_one_image_is_too_small_for_32_pixels(refused, batch_size):
    """At 32 pixels the student has one position: batch norm cannot train on a single image there."""
    refused(*TRAIN, "--batch_size", batch_size, expect=["bottle has 4 images", f"--batch_size {batch_size}"])


def test_foreign_weights(refused, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}}, tmp_path / "nested.pth")
    for name, reason in (
        ("foreign", "tensors are missing"),
        ("page", "cannot read"),
        ("list", "holds a list"),
        ("nested", "expected a state dict"),
    ):
        refused(*TRAIN, "--backbone", "resnet18", "--weights", f"{name}.pth", expect=[f"{name}.pth", reason])


def test_weights_that_cannot_be_downloaded(refused, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    (tmp_path / "hub/hub/checkpoints").mkdir(parents=True)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    err = refused(
        *DEFAULTS, "--aux_path", "builtin", "--backbone", "wide_resnet50_2",
        expect=["no route to host", "--weights PATH", "--backbone efficientnet_lite0 --weights bundled"],
    )
    assert re.search(r"https://\S+/wide_resnet50_2-95faca4d\.pth", err)


# The run


def test_run_that_cannot_be_scored(refused, trained, tmp_path):
    refused(expect=["no trained run of", "train one with train.py"], run=run_test)
    refused("--run", "absent", expect=["absent is not a run folder"], run=run_test)
    shutil.copytree(trained.rd4ad, tmp_path / "runs/other")
    refused(expect=["runs/other (of ", "choose one with --run"], run=run_test)
    shutil.rmtree(tmp_path / "runs/other/checkpoints")
    refused("--run", "runs/other", expect=["runs/other has no category yet that is trained"], run=run_test)


def test_output_that_is_a_file(refused, tmp_path):
    (tmp_path / "taken").touch()
    refused(*TRAIN, "--output", "taken", expect=["taken"])


def test_single_seed_and_several_do_not_mix(refused, trained, seeded, tmp_path):
    shutil.copytree(trained.aand, tmp_path / "single")
    shutil.copytree(seeded.run, tmp_path / "several")
    options = [*TRAIN, "--output"]
    expect = ["single holds a run of a single seed; choose another --output"]
    refused(*options, "single", "--seeds", 0, 1, root=trained.data, expect=expect)
    expect = ["several holds a run of several seeds; go on with --seeds"]
    refused(*options, "several", "--seed", 0, root=trained.data, expect=expect)


def test_seeds_of_a_run_share_its_settings(refused, trained, seeded, tmp_path):
    shutil.copytree(seeded.run, tmp_path / "several")
    options = [*TRAIN, "--output", "several", "--lr", 0.001, "--seeds"]
    for seeds in ([7], [7, 0], [1]):
        expect = ["several/seed0 holds a run with other settings (lr: 0.005 -> 0.001)"]
        refused(*options, *seeds, root=trained.data, expect=expect)
    shutil.rmtree(tmp_path / "several/seed0")
    refused(*options, 1, root=trained.data, expect=["several/seed1 holds a run with other settings (lr: 0.005 -> 0"])


def test_repeated_seed(refused):
    refused(*TRAIN, "--seeds", 1, 0, 1, expect=["--seeds 1 0 1: each seed only once"])


def test_an_argument_that_is_not_utf8(tmp_path):
    """Bytes of a path that are no text come as half characters."""
    result = run_train(tmp_path, "--data_root", "data\udcff")
    assert result.status == 2
    assert result.errors == [r"error: 'data\udcff' is not UTF-8, and could not be written to a run's files; rename it"]
