"""How long 37 categories x 2 methods x 3 seeds take on 1 to 512 GPUs, by list scheduling, the longest task first.

    python benchmarks/sweep_simulation.py --plot docs/sweep_simulation.svg
    python benchmarks/sweep_simulation.py --stage1 0.0006 --stage2 0.0007 --overhead 40      # of your machine
    python benchmarks/sweep_simulation.py --run runs/NAME --images 209                       # as its log.txt has them

Measured: seconds of a training image in an epoch of each stage (--stage1, --stage2, or the times between the epochs in
a run's log.txt), and the images of each category (benchmarks/dataset_sizes.py). Modelled: everything else. A task
takes its images times its epochs times these seconds, on every GPU alike, plus --overhead; rd4ad takes Stage II of aand
without Stage I; nothing waits for storage; nothing fails; a category on k GPUs is 1 + (k - 1) * efficiency times as
fast. So the hours are those of the machine that was measured, and so is what follows from the proportion of the stages;
speed-up and idle share hardly depend on it.

"split" lets the longest tasks have 2, 4, 8, ... GPUs as long as that shortens the whole.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.dataset_sizes import TRAINING_IMAGES
from benchmarks.list_scheduling import Job, Schedule, list_schedule, lower_bound
from utils.cli import (
    at_least,
    number,
    positive,
    run_command,
    share,
    user_path,
)
from utils.runs.history import LOG
from utils.system.errors import UsageError

EPOCH_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.+) stage ([12]) epoch (\d+)/\d+ ")
GPUS = [2**power for power in range(10)]
SEEDS = 3


@dataclass(frozen=True)
class Costs:
    """Seconds of an image in an epoch of each stage, and of a task besides."""

    stage1: float
    stage2: float
    overhead: float
    epochs: tuple[int, int]

    def seconds(self, images: int, method: str) -> float:
        amplification = images * self.epochs[0] * self.stage1 if method == "aand" else 0.0
        return amplification + images * self.epochs[1] * self.stage2 + self.overhead


@dataclass(frozen=True)
class Work:
    """A task as seconds of training, which several GPUs share, and seconds besides, which they do not."""

    training: float
    overhead: float

    def on(self, gpus: int, efficiency: float) -> Job:
        return Job(self.training / (1 + (gpus - 1) * efficiency) + self.overhead, gpus)


def all_tasks(costs: Costs) -> list[Work]:
    """Of every category, method and seed."""
    images = [count for categories in TRAINING_IMAGES.values() for count in categories.values()]
    each = [costs.seconds(count, method) - costs.overhead for count in images for method in ("aand", "rd4ad")]
    return [Work(seconds, costs.overhead) for seconds in each for _ in range(SEEDS)]


def split_schedule(tasks: Sequence[Work], gpus: int, efficiency: float) -> Schedule:
    """The best schedule found by giving the longest tasks twice as many GPUs, again and again.

    Tasks of the same length are split together; it ends when no task can be, or it has brought nothing for a while.
    """
    widths = [1] * len(tasks)
    best = current = _schedule(tasks, widths, gpus, efficiency)
    in_vain = 0
    while in_vain < 10:
        jobs = [task.on(width, efficiency) for task, width in zip(tasks, widths, strict=True)]
        longest = max(job.seconds for job in jobs)
        chosen = [place for place, job in enumerate(jobs) if job.seconds > 0.999 * longest]
        if 2 * widths[chosen[0]] > gpus:
            break
        for place in chosen:
            widths[place] *= 2
        current = _schedule(tasks, widths, gpus, efficiency)
        in_vain = 0 if current.makespan < best.makespan else in_vain + 1
        best = min(best, current, key=lambda schedule: schedule.makespan)
    return best


def _schedule(tasks: Sequence[Work], widths: Sequence[int], gpus: int, efficiency: float) -> Schedule:
    return list_schedule(longest_first(t.on(w, efficiency) for t, w in zip(tasks, widths, strict=True)), gpus)


def read_log(run: Path, images: int) -> tuple[float, float]:
    """Seconds of an image in an epoch of Stage I and II, from the times of the epochs in log.txt of a run of one
    category that was not stopped.

    Raises UsageError for a log without two epochs of each stage.
    """
    times: dict[int, list[datetime]] = {1: [], 2: []}
    for line in (run / LOG).read_text(encoding="utf-8").splitlines():
        if found := EPOCH_LINE.match(line):
            times[int(found[3])].append(datetime.fromisoformat(found[1]))
    if min(map(len, times.values())) < 2:
        raise UsageError(f"--run {run}: {LOG} has not two epochs of each stage")
    stage1, stage2 = ((t[-1] - t[0]).total_seconds() / (len(t) - 1) / images for t in times.values())
    return stage1, stage2


@dataclass(frozen=True)
class Row:
    gpus: int
    whole: Schedule
    split: Schedule
    bound: float  # no schedule of whole tasks ends before


def simulate(costs: Costs, efficiency: float, gpus: Sequence[int] = GPUS) -> list[Row]:
    tasks = all_tasks(costs)
    jobs = longest_first(task.on(1, efficiency) for task in tasks)
    return [
        Row(count, list_schedule(jobs, count), split_schedule(tasks, count, efficiency), lower_bound(jobs, count))
        for count in gpus
    ]


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: job.seconds, reverse=True)


def idle_share(schedule: Schedule) -> float:
    """Share of all slots' time until the last job ends that no job takes, 0..1."""
    busy = sum(job.seconds * job.width for job in schedule.jobs)
    return 1 - busy / (schedule.slots * schedule.makespan) if schedule.makespan else 0.0


def format_rows(rows: Sequence[Row]) -> str:
    """A Markdown table; hours in four digits."""
    longest = max(job.seconds for job in rows[0].whole.jobs)
    one = rows[0].whole.makespan
    heading = ("GPUs", "hours", "times as fast as one", "idle", "bounded by", "split: hours", "times as fast", "idle",
               "widest")
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        by = "the longest task" if row.bound == longest else "the work itself"
        whole, split = row.whole.makespan, row.split.makespan
        widest = max(job.width for job in row.split.jobs)
        lines.append(
            f"| {row.gpus} | {whole / 3600:.4g} | {one / whole:.1f} | {idle_share(row.whole):.1%} | {by} "
            f"| {split / 3600:.4g} | {one / split:.1f} | {idle_share(row.split):.1%} | {widest} |"
        )
    return "\n".join(lines)


def plot(path: Path, rows: Sequence[Row], efficiency: float) -> None:
    """Speed-up and idle share over the number of GPUs."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "sweep", "svg.fonttype": "none"}  # the same figures give the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    gpus, one = [row.gpus for row in rows], rows[0].whole.makespan
    left.plot(gpus, gpus, ":", color="grey", label="ideal")
    split = f"longest tasks split, efficiency {efficiency:g}"
    for name, schedules in {"one GPU a task": [r.whole for r in rows], split: [r.split for r in rows]}.items():
        left.plot(gpus, [one / schedule.makespan for schedule in schedules], "o-", label=name)
        right.plot(gpus, [100 * idle_share(schedule) for schedule in schedules], "o-", label=name)
    left.set_ylabel("times as fast as one")
    right.set_ylabel("idle, %")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("GPUs")
    left.set_yscale("log", base=2)
    left.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage1", type=positive, default=1 / 5.3, metavar="S", help="seconds of an image in an epoch of Stage I "
        "(default 1/5.3: WideResNet50-2 on two CPU cores, docs/performance.md)")
    add("--stage2", type=positive, default=1 / 3.2, metavar="S", help="of Stage II (default 1/3.2: as above)")
    add("--run", type=user_path, metavar="DIR", help="take both from log.txt of this run of one category")
    add("--images", type=at_least(1), metavar="N", help="training images of that run")
    add("--overhead", type=number, default=0.0, metavar="S", help="of a task: start, reading, scoring (default 0)")
    add("--epochs", type=at_least(1), nargs=2, default=(100, 120), metavar="N", help="of both stages (default 100 120)")
    add("--efficiency", type=share, default=0.8, metavar="X", help="what each further GPU of a task adds (default 0.8)")
    add("--plot", type=user_path, metavar="FILE", help="draw it: .svg or .png (needs matplotlib)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if (args.run is None) != (args.images is None):
        raise UsageError("--run and --images go together")
    stage1, stage2 = read_log(args.run, args.images) if args.run else (args.stage1, args.stage2)
    costs = Costs(stage1, stage2, args.overhead, tuple(args.epochs))
    rows = simulate(costs, args.efficiency)
    print(f"{stage1:.4g} and {stage2:.4g} s an image and epoch, {args.overhead:g} s a task besides, "
          f"{len(rows[0].whole.jobs)} tasks, efficiency of splitting {args.efficiency:g}\n")
    print(format_rows(rows))
    if args.plot:
        plot(args.plot, rows, args.efficiency)


if __name__ == "__main__":
    run_command(main)
