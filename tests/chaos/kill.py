"""Kill training at random moments, let it go on, and compare what it ends with to a run that was left alone.

    python tests/chaos/kill.py --trials 50              # make chaos
    python tests/chaos/kill.py --trials 5 --seed 1

A run trains two categories of tiny images in both stages, with the test metrics of every epoch, and is scored. Each
trial starts it in a process of its own and ends this by SIGKILL, up to three times: after a random time, or within a
save, before or after a call that writes to the disk, or with half a checkpoint written. Then it is started again until
it ends by itself. Every tensor of every checkpoint, metrics.jsonl and the results must have the same bits. Prints a
table of the moments; exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.support.commands import ROOT, TINY, read_state, same_state
from tests.support.trees import make_mvtec

CATEGORIES = ("bottle", "tile")
FLAGS = [
    *TINY, "--eval_every", "1", "--aux_path", "builtin", "--epochs_stage1", "3", "--epochs_stage2", "4", "--batch_size",
    "4",
]
CALLS = ("fsync", "replace", "replaced", "half a save")
MOST_KILLS = 3
PATIENCE = 120  # seconds that an undisturbed process may take


class Moment(NamedTuple):
    """When a process is killed: a number of seconds after its start, or at the n-th of some calls."""

    what: str  # "time" or one of CALLS
    when: float


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_score(folder: Path, run: str, moment: Moment | None, counts: str | None) -> None:
    """What a process does. With `counts` the number of calls of each kind is written to that file at the end."""
    log = os.open(folder / f"{run}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    seen = watch_calls(moment)
    for program, flags in (("train.py", FLAGS), ("test.py", ["--run", run, "--device", "cpu", "--workers", "1"])):
        own = ["--output", run] if program == "train.py" else []
        sys.argv = [program, "--data_root", "data", *map(str, flags), *own]
        runpy.run_path(str(ROOT / program), run_name="__main__")
    if counts:
        Path(counts).write_text(json.dumps(seen))


def watch_calls(moment: Moment | None) -> Counter:
    """Count the calls that bring something to the disk, and die at one of them."""
    seen = Counter()
    fsync, replace, save = os.fsync, Path.replace, torch.save

    def reached(what: str) -> bool:
        seen[what] += 1
        return moment is not None and moment == (what, seen[what])

    def dying_fsync(descriptor: int) -> None:
        if reached("fsync"):
            die()
        fsync(descriptor)

    def dying_replace(path: Path, target: Path) -> Path:
        if reached("replace"):
            die()
        moved = replace(path, target)
        if reached("replaced"):
            die()
        return moved

    def dying_save(content: object, file: io.IOBase) -> None:
        if reached("half a save"):
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die()
        save(content, file)

    os.fsync, Path.replace, torch.save = dying_fsync, dying_replace, dying_save
    return seen


class Farm:
    """Starts processes that have everything imported already."""

    def __init__(self, folder: Path):
        self.folder = folder
        os.environ["PYTHONPATH"] = str(ROOT)  # of the server that they are forked from
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.chaos.kill", "utils.training.run", "utils.results.scoring"])
        make_mvtec(folder / "data", CATEGORIES, train=6)  # the last batch is a smaller one
        first = self.context.Process(target=os.getpid)  # waits for the imports: none of the later ones does
        first.start()
        first.join()

    def run(self, run: str, moment: Moment | None = None, counts: str | None = None) -> bool:
        """Start a process and kill it at the moment; whether it came to its end instead. RuntimeError if it failed."""
        process = self.context.Process(target=train_and_score, args=(self.folder, run, moment, counts))
        process.start()
        process.join(moment.when if moment and moment.what == "time" else PATIENCE)
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{run} ended with {process.exitcode}:\n{(self.folder / f'{run}.out').read_text()}")
        return process.exitcode == 0

    def outcome(self, run: str) -> dict[str, object]:
        """All that must be the same: each checkpoint's content, metrics.jsonl, and the figures of the results."""
        folder = self.folder / run
        content: dict[str, object] = {
            str(path.relative_to(folder)): read_state(path) for path in sorted(folder.rglob("*.pt"))
        }
        content["metrics.jsonl"] = (folder / "metrics.jsonl").read_text()
        content["results"] = json.loads((folder / "results.json").read_text())["categories"]
        content["other files"] = sorted(path.name for path in folder.iterdir())
        return content

    def state(self, run: str) -> str:
        """How far a killed run is, for the table."""
        folder = self.folder / run
        if (folder / "results.json").is_file():
            return "scored"
        stages = [path for path in folder.glob("checkpoints/*/stage?.pt")]
        if len(stages) == 2 * len(CATEGORIES):
            return "all trained"
        begun = [path for path in folder.glob("checkpoints/*/*.progress.pt")]
        if begun:
            return f"within stage {begun[0].name[5]}"
        return "between stages" if stages else "before the first epoch's end"


def trial(farm: Farm, run: str, draw: Callable[[], Moment], kills: int) -> list[tuple[str, str]]:
    """Kill a run so many times and let it come to its end; (kind of moment, state it was killed in) of each kill."""
    killed = []
    for _ in range(kills):
        moment = draw()
        if farm.run(run, moment):
            break
        killed.append((moment.what, farm.state(run)))
    if not farm.run(run):
        raise RuntimeError(f"{run} did not end within {PATIENCE} s:\n{(farm.folder / f'{run}.out').read_text()}")
    return killed


def torture(folder: Path, trials: int, seed: int) -> tuple[Counter, list[str]]:
    """All trials: how often a process was killed by kind of moment and state, and the runs that ended otherwise."""
    farm, rng = Farm(folder), random.Random(seed)
    started = time.perf_counter()
    farm.run("reference", counts="counts.json")
    duration = time.perf_counter() - started
    calls = json.loads((folder / "counts.json").read_text())
    expected = farm.outcome("reference")

    def draw() -> Moment:
        what = rng.choice(["time", *CALLS])
        return Moment(what, rng.uniform(0, duration) if what == "time" else rng.randint(1, calls[what]))

    kinds, different = Counter(), []
    for number in range(trials):
        run = f"run{number}"
        kinds.update(trial(farm, run, draw, rng.randint(1, MOST_KILLS)))
        outcome = farm.outcome(run)
        names = [name for name in {**expected, **outcome} if not same_state(expected.get(name), outcome.get(name))]
        different += [f"{run}: {name}" for name in names]
        print(f"{run}: {sum(kinds.values())} kills so far, {len(different)} differences", flush=True)
    return kinds, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="runs that are killed (default 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (default 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds, different = torture(Path(folder), options.trials, options.seed)
    print("\n| killed | the run was | times |\n|---|---|---|")
    for (what, state), times in sorted(kinds.items()):
        print(f"| {what} | {state} | {times} |")
    print(f"\n{options.trials} runs, {sum(kinds.values())} kills, {len(different)} differences")
    print("\n".join(different))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
