"""results/: the documents say what its files say, its scripts hold the commands that made them, and nothing lies about
that no script prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
SCRIPTS = sorted(path.name for path in RESULTS.glob("*.sh") if path.name != "common.sh")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PRINTED = re.compile(r"^<!-- (results/\w+\.sh --print\b[^\n]*) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(path, *block, id=f"{path.name}: {block[0]}")
    for path in DOCUMENTS for block in PRINTED.findall(path.read_text(encoding="utf-8"))
]
DEFAULTS = {
    "method": "aand", "recipe": "published", "image_size": "256", "precision": "bf16", "aux_path": "data/dtd/images",
}  # bf16: what `auto` was on that machine
CHANGE_NOTHING = ("output", "workers", "fg_root", "run", "batch_size")  # places, speed

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def script(*arguments: str, **variables: str) -> str:
    """What a script prints, called from the repository's root with none of its variables set but these."""
    known = ("MVTEC", "MVTEC3D", "FOLDER", "DTD", "WEIGHTS", "WEIGHTS50", "OUTPUT", "FROM")
    clean = {name: value for name, value in os.environ.items() if name not in known}
    done = subprocess.run(
        ["bash", *arguments], cwd=ROOT, env=clean | {"PYTHON": sys.executable} | variables, capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seed_folders() -> list[Path]:
    return sorted(RESULTS.glob("*/*/*"))


def normal(command: str) -> tuple[str, dict[str, str]]:
    """A command's program and its flags, without those that change no figure."""
    _, program, *words = shlex.split(command)
    flags = dict(DEFAULTS) if program == "train.py" else {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, flags[word[2:]] = word[2:], ""
        else:
            flags[name] = f"{flags[name]} {word}".strip()
    return program, {key: value for key, value in flags.items() if key not in CHANGE_NOTHING}


def folder_of(command: str) -> str:
    """The run's folder below the question's: `tire-rd4ad-lite0` or `.../seed0`."""
    return re.search(r"--(?:output|run) runs/\w+/(\S+)", command)[1]


@pytest.mark.parametrize(("document", "call", "table"), BLOCKS)
def test_documents_have_the_printed_tables(document, call, table):
    assert script(*call.split()) == table, f"{document}: the output of `bash {call}` belongs between the marks"


def test_every_table_stands_in_a_document():
    calls = {block.values[1] for block in BLOCKS}
    assert "results/main.sh --print" in {c for path, c, _ in (b.values for b in BLOCKS) if path.name == "README.md"}
    comments = "".join((RESULTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    tables = re.findall(r"bash (results/\w+\.sh --print(?: \w+)?) ", comments)
    assert set(tables) == calls
    assert len(tables) == 7


def test_a_changed_number_changes_the_table(tmp_path):
    shutil.copytree(RESULTS / "main", tmp_path / "main")
    path = tmp_path / "main" / "tire-robust-lite0" / "seed1" / "results.json"
    results = json.loads(path.read_text())
    results["categories"]["tire"]["image_auroc"] -= 0.001  # a thirtieth of a point of the mean
    path.write_text(json.dumps(results))
    said, now = script("results/main.sh", "--print"), script("results/main.sh", "--print", FROM=str(tmp_path / "main"))
    different = [pair for pair in zip(said.splitlines(), now.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(different) == 1
    assert "92.11" in different[0][0]
    assert "92.07" in different[0][1]


def test_every_seed_has_its_files_and_nothing_else_is_there():
    assert len(seed_folders()) == 187
    for folder in seed_folders():
        assert re.fullmatch(r"[a-z_]+-(rd4ad|patchcore|published|robust)-(resnet18|resnet50|lite0)(-\w+)?/seed\d",
                            "/".join(folder.parts[-2:])), folder
        scores = ["scores.csv"] if folder.parent.name.startswith("loose_pills-") else []  # of which kinds are printed
        assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "metrics.jsonl", "results.json", *scores]
    questions = [script.removesuffix(".sh") for script in SCRIPTS]
    assert sorted(path.name for path in RESULTS.iterdir()) == sorted([*questions, *SCRIPTS, "README.md", "common.sh"])


def test_names_of_folders_are_those_of_their_settings():
    for folder in seed_folders():
        results = json.loads((folder / "results.json").read_text())
        settings = results["settings"]
        recipe = settings.get("recipe", "published") if settings["method"] == "aand" else settings["method"]
        backbone = settings["backbone"]
        teacher = {"efficientnet_lite0": "lite0", "resnet50_v1": "resnet50"}.get(backbone, backbone)
        category, *rest = folder.parent.name.split("-")
        assert [category] == settings["categories"], folder
        assert rest[:2] == [recipe, teacher], folder
        assert rest[2:] in ([], ["plain" if settings.get("plain") else "default"]), folder
        assert folder.name == f"seed{results['seed']}", folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_run_is_printed_and_linked(name):
    """By a table of its script, and the question by results/README.md."""
    question = name.removesuffix(".sh")
    linked = set()
    for document, call, table in (block.values for block in BLOCKS):
        if call.startswith(f"results/{name} "):
            linked |= {(document.parent / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", table)}
    runs = set((RESULTS / question).iterdir())
    if question == "epoch_selection":  # its table has no row a run
        linked = {RESULTS / question / folder_of(line) for line in script(f"results/{name}", "--commands").splitlines()}
    assert linked == runs
    readme = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert f"]({question})" in readme
    assert f"]({name})" in readme


@pytest.mark.parametrize("name", SCRIPTS)
def test_commands_are_those_that_the_files_record(name):
    question = name.removesuffix(".sh")
    commands = script(f"results/{name}", "--commands").splitlines()
    seen = set()
    for command in commands:
        part = "training" if command.split()[1] == "train.py" else "testing"
        folder = RESULTS / question / folder_of(command)
        for seed in sorted(folder.glob("seed*")) or [folder]:
            made = json.loads((seed / "results.json").read_text())[part]["command"]
            assert normal(command) == normal(made), seed
            seen.add((seed, part))
    assert {seed for seed, part in seen if part == "training"} == set((RESULTS / question).glob("*/seed*"))
    for seed in (RESULTS / question).glob("*/seed*"):  # one that test.py scored needs its command
        scored = json.loads((seed / "results.json").read_text())["testing"]["command"]
        assert (scored.split()[1] == "test.py") == ((seed, "testing") in seen), seed


def test_wrong_arguments_say_what_is_right():
    for arguments, said in ((("--wrong",), "usage: bash results/main.sh"), (("--print", "wrong"), "tables: summary")):
        done = subprocess.run(["bash", RESULTS / "main.sh", *arguments], capture_output=True, encoding="utf-8")
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.parametrize("document", [*DOCUMENTS, RESULTS / "README.md"], ids=lambda path: path.parent.name + path.name)
def test_links_and_paths_into_results_exist(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    for path in re.findall(r"(?<![\w/.])results/[a-z_]+/[\w{,}/.-]+", text):  # braces as the shell expands them
        expanded = subprocess.run(["bash", "-c", f"echo {path}"], capture_output=True, encoding="utf-8").stdout
        assert [one for one in expanded.split() if not (ROOT / one).exists()] == []
