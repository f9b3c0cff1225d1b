"""Train and score many categories with several methods and seeds, on a Ray cluster or, task by task, on anything else.

    python scripts/sweep.py --data_root data/mvtec data/visa --categories all --methods rd4ad aand --seeds 0 1 2 \\
        --store s3://bucket/sweep --address ray://head:10001 --cpus 8 --gpus 1 --epochs_stage1 100
    python scripts/sweep.py ... --dry_run              # the plan, the expected time; starts nothing
    python scripts/sweep.py ... --list                 # the tasks with their numbers
    python scripts/sweep.py ... --task 3               # one of them, here, without Ray: scripts/slurm.sbatch
    python scripts/fetch_runs.py --store s3://bucket/sweep --output runs      # what is finished, to disk

One task is one data set, category, method and seed: train.py and test.py, called with the flags that this program does
not know. Without --address a Ray of this machine is started. --store is where run folders are kept: a path, s3://, or
what else fsspec opens; credentials come from the environment. Run the same command again to go on: finished tasks are
not done again, others go on from what they last saved. Exit status 1 if a task failed; the others are done.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from models.recipes import METHODS
from train import make_parser as train_parser
from utils.cli import MAX_SEED, CommandParser, at_least, number, positive, run_command, user_path
from utils.sweep.attempts import completed, completed_keys
from utils.sweep.driver import RayCluster, Sweep
from utils.sweep.gather import tabulate
from utils.sweep.plan import OF_A_TASK, Estimate, Plan, check_settings, format_plan, make_plan
from utils.sweep.store import Store
from utils.sweep.work import Workplace, work
from utils.system.errors import Superseded, TaskFailed, TaskLost, UsageError


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        description=__doc__, epilog="all other flags are those of train.py, and the same for every task"
    )
    add = parser.add_argument
    add("--data_root", type=user_path, nargs="+", required=True, metavar="DIR", help="folders that hold categories")
    add("--categories", nargs="+", default=["all"], metavar="NAME", help="of any of them (default: all)")
    add("--methods", nargs="+", choices=METHODS, default=["aand"], help="the first is what others are compared with "
        "(default aand)")
    add("--seeds", type=at_least(0, MAX_SEED), nargs="+", default=[0], metavar="N", help="seeds of the runs "
        "(default 0)")
    add("--store", required=True, metavar="URL", help="path or URL where the runs of this sweep are kept")
    add("--address", metavar="URL", help="of a Ray cluster: ray://HOST:PORT, HOST:PORT or auto (default: a new one on "
        "this machine)")
    add("--cpus", type=at_least(1), default=1, metavar="N", help="cores of a task, and its threads (default 1)")
    add("--gpus", type=share_of_gpus, default=0.0, metavar="X", help="GPUs of a task; 0.5: two share one (default 0)")
    add("--retries", type=at_least(0), default=3, metavar="N", help="of a task that was lost (default 3)")
    add("--push_every", type=positive, default=120.0, metavar="S", help="seconds between two savings of a running "
        "task's folder to the store (default 120)")
    add("--scratch", type=user_path, default=Path(tempfile.gettempdir()), metavar="DIR", help="folder of "
        "running tasks, on each machine's own disk (default: the system's for temporary files)")
    add("--seconds_per_image_epoch", type=positive, metavar="S", help="what a training image takes in an epoch, for "
        "the expected time (default: as finished tasks took)")
    add("--slots", type=at_least(1), metavar="N", help="tasks at the same time, for --dry_run (default: this machine's "
        "cores / --cpus)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry_run", action="store_true", help="print the plan and start nothing")
    instead.add_argument("--list", action="store_true", help="print number and name of each task, and start nothing")
    instead.add_argument("--task", type=at_least(0), metavar="N", help="do this one alone, here, without Ray")
    return parser


def share_of_gpus(text: str) -> float:
    """An argparse type: 0 or more GPUs, below 1 a share of one."""
    value = number(text)
    if value < 0 or (value > 1 and value % 1):
        raise argparse.ArgumentTypeError(f"{value:g} is neither a whole number nor a share of one")
    return value


def main(args: argparse.Namespace, others: list[str]) -> None:
    store, plan = Store(args.store), plan_of(args, others)
    if args.list:
        print(*(f"{number}\t{printable(task.key)}" for number, task in enumerate(plan.tasks)), sep="\n")
        return
    check_settings(store, plan, keep=not args.dry_run)
    place = Workplace(args.cpus, args.push_every, args.scratch.resolve())
    if args.task is not None:
        do_one(args.task, plan, store, place)
        return
    finished, estimate = progress(plan, store, args.seconds_per_image_epoch)
    if args.dry_run:
        slots = args.slots or max(1, (os.cpu_count() or 1) // args.cpus)
        print(format_plan(plan, finished, estimate, slots))
        return
    failed = do_all(args, plan, store, place, finished, estimate)
    if not failed or completed_keys(store):
        print(tabulate(store, plan))
    for line in failed:
        print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(bool(failed))


def plan_of(args: argparse.Namespace, others: list[str]) -> Plan:
    """The plan by this program's flags and the others, which train.py's parser checks: it ends the program if they are
    wrong."""
    given = {flag.partition("=")[0] for flag in others}
    for name in (*OF_A_TASK, "seeds", "output", "resume", "help"):
        if f"--{name}" in given:
            raise UsageError(f"--{name} of train.py cannot be passed on: a sweep sets it for each task")
    parser = train_parser()
    settings = vars(parser.parse_args(["--data_root", ".", *others]))
    if settings["time_limit"] is not None:
        raise UsageError("--time_limit of train.py cannot be passed on: each task would have other epochs")
    common = {name: settings[name] for name in ("device", "workers", "cache", "cache_dir")}  # with test.py
    scoring = [f"--{name}={value}" for name, value in common.items() if value != parser.get_default(name)]
    scoring += ["--skip_bad"] * settings["skip_bad"]
    categories = None if args.categories == ["all"] else args.categories
    return make_plan(args.data_root, categories, args.methods, args.seeds, settings, others, scoring)


def progress(plan: Plan, store: Store, given: float | None) -> tuple[set[str], Estimate]:
    """The keys of finished tasks, and what tasks are expected to take."""
    done, estimate = set(completed_keys(store)), Estimate(given)
    for task in plan.tasks:
        content = completed(store, task.key) if task.key in done else None
        if content and "seconds" in content:
            estimate.add(task.method, content["seconds"], task.image_epochs)
    return done, estimate


def do_one(number: int, plan: Plan, store: Store, place: Workplace) -> None:
    """Do the task of a number in this process; SystemExit if it failed."""
    if number >= len(plan.tasks):
        raise UsageError(f"--task {number}: there are {len(plan.tasks)} tasks, numbered from 0")
    task = plan.tasks[number]
    try:
        content = work(task, store, place)
    except (TaskFailed, TaskLost, Superseded) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{printable(task.key)}: done, attempt {content['attempt']}")


def do_all(
    args: argparse.Namespace, plan: Plan, store: Store, place: Workplace, finished: set[str], estimate: Estimate
) -> list[str]:
    """Do what is not finished, on Ray; returns a line for each task that failed."""
    tasks = [task for task in plan.tasks if task.key not in finished]
    print(f"{len(plan.tasks)} tasks, {len(plan.tasks) - len(tasks)} of them finished", file=sys.stderr)
    if not tasks:
        return []
    if store.protocol == "memory":
        raise UsageError(f"--store {args.store}: the workers of Ray are other processes, which do not see it")
    with closing(RayCluster(args.address, args.cpus, args.gpus, store.url, place)) as cluster:
        return [entry.error for entry in Sweep(tasks, estimate, retries=args.retries).run(cluster)]


if __name__ == "__main__":
    flags, flags_of_train = make_parser().parse_known_args()
    run_command(lambda: main(flags, flags_of_train))
