"""Compose the picture of README from the heat maps of the demo: test images above, their heat maps below.

    python docs/make_picture.py demo/run-20-epochs --output docs/demo.png        # make picture: the demo first

Shown is the first test image of some kinds, whatever it looks like.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

SHOWN = ("brick/scratch", "grass/patch", "gravel/hole", "gravel/good")
SIDE = 240  # pixels of a panel
GAP = 8  # pixels between panels


def split_heat_map(path: Path) -> tuple[Image.Image, Image.Image]:
    """A heat map of test.py as photograph and map, each (SIDE, SIDE)."""
    with Image.open(path) as image:
        both = image.convert("RGB")
    width, height = both.size
    halves = both.crop((0, 0, width // 2, height)), both.crop((width // 2, 0, width, height))
    return tuple(half.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for half in halves)


def compose(paths: list[Path]) -> Image.Image:
    """Heat maps side by side on white."""
    step = SIDE + GAP
    picture = Image.new("RGB", (step * len(paths) - GAP, step + SIDE), "white")
    for column, path in enumerate(paths):
        for row, panel in enumerate(split_heat_map(path)):
            picture.paste(panel, (column * step, row * step))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run of the demo, scored by test.py --save_maps")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="PNG file to write")
    args = parser.parse_args()
    paths = [args.run / "maps" / kind / "000.png" for kind in SHOWN]
    if missing := [path for path in paths if not path.is_file()]:
        sys.exit(f"error: {missing[0]} is not there; make demo writes it")
    picture = compose(paths).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # a third of the bytes
    picture.save(args.output, optimize=True)
    width, height = picture.size
    print(f"wrote {args.output}: {width} x {height} pixels, {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
