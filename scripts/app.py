"""Look at images of your own in a browser, with a trained category: heat map, score, verdict, a threshold to move.

    python scripts/app.py runs/NAME                                 # http://127.0.0.1:7860, on this machine alone
    python scripts/app.py bottle.onnx --far 0.05                    # of scripts/export.py: runs without torch
    python scripts/app.py runs/NAME --category bottle --folder photos/

Needs Gradio: pip install -r requirements-deploy.txt. Images come from files, from a camera and, with --folder, from
folders of this machine. Nothing is asked of other hosts, and what is uploaded is deleted when the app ends (Ctrl-C).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.base import MAX_PIXELS
from utils.app.hosts import host_name
from utils.cli import (
    CommandParser,
    add_computing_flags,
    add_model_flags,
    add_workers_flag,
    at_least,
    number,
    positive,
    run_command,
    share,
    user_path,
)
from utils.system.errors import UsageError


def host(text: str) -> str:
    """An argparse type: a host's name or address."""
    try:
        return host_name(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("model", type=user_path, metavar="RUN_OR_MODEL", help="run folder of train.py, or an .onnx or .xml file of "
        "scripts/export.py")
    add_model_flags(parser)
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument("--far", type=share, metavar="X", help="share of good images that may be called anomalous, "
                           "to begin with (default: what the thresholds were set for)")
    threshold.add_argument("--threshold", type=number, metavar="T", help="a threshold of your own to begin with")
    add("--folder", type=user_path, metavar="DIR", help="let visitors score the images below DIR, by path; without, "
        "the app reads no image of this machine")
    add("--host", default="127.0.0.1", help="address to serve on; any but this machine's own lets others in, without "
        "a password (default 127.0.0.1)")
    add("--allowed_host", type=host, action="append", default=[], metavar="NAME", help="another name or address "
        "under which browsers may ask for the app, such as a proxy's; may be given several times (default: that of "
        "--host alone, and with 0.0.0.0 or :: this machine's name and addresses)")
    add("--port", type=at_least(0, 65535), default=7860, metavar="N", help="0: any that is free (default 7860)")
    add("--max_upload", type=positive, default=50, metavar="MB", help="megabytes that a file may have (default 50)")
    add("--max_pixels", type=at_least(1, MAX_PIXELS), default=MAX_PIXELS, metavar="N", help="pixels that an image may "
        f"have (default {MAX_PIXELS}, the most)")
    add_computing_flags(parser)
    add_workers_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from utils.app import serving
    from utils.detection.detector import load_detector
    from utils.runs.given import run_of_category
    from utils.system.packages import require

    if args.folder and not args.folder.is_dir():
        raise UsageError(f"--folder {args.folder}: there is no such folder")
    stopping = serving.Stopping()
    with (
        serving.open_port(args.host, args.port) as port, serving.private_folder() as private, serving.no_connections(),
        serving.ended_in_time(stopping, private),
    ):
        require("gradio", "the app")
        from utils.app.page import LOOKS, Page

        model, category = run_of_category(args.model, args.category, None)
        detector = load_detector(model, category, args.seed, args.device, args.batch_size)
        detector = detector.at(args.far) if args.far is not None else detector
        detector = replace(detector, threshold=args.threshold, most_pixels=args.max_pixels)
        limits = serving.Limits(args.max_upload, args.max_pixels)
        page = Page(detector, limits, args.folder, args.workers, stopping)
        server = serving.make_server(page.build(), port, limits, private, stopping, args.allowed_host, **LOOKS)
        if not port.is_local:
            print(f"warning: --host {args.host}: whoever reaches this machine can use the app and sees what --folder "
                  "shows; there is no password, and nothing is encrypted", file=sys.stderr)
        server.run(sockets=[port.socket])


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
