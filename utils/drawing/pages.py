"""HTML pages that fetch nothing: from Jinja templates, in which every value is text, escaped and printable, with data
URIs in them.

    render = open_templates(Path(__file__).parent / "templates")
    page = render("page.html", title="<b>\n")                # &lt;b&gt;\n, with a backslash
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datasets.names import printable


def open_templates(folder: Path, **filters: Callable) -> Callable[..., Markup]:
    """Return a function that fills in a template of the folder, given its name and the values by name.

    What it returns is Markup: the one kind of value that other templates take as HTML. The filter `tojson` gives JSON
    that cannot end a script element.
    """
    templates = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, finalize=_visible,
        trim_blocks=True, lstrip_blocks=True,
    )
    templates.filters.update(filters)
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return lambda name, /, **values: Markup(templates.get_template(name).render(values))


def _visible(value: object) -> str:
    if isinstance(value, Markup) or (isinstance(value, str) and value.isprintable()):  # of pictures there are megabytes
        return value
    return printable(value)


def shrink(pixels: np.ndarray, most: int) -> np.ndarray:
    """An image uint8 (H, W, 3) with sides of at most so many pixels."""
    height, width = pixels.shape[:2]
    scale = most / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return pixels if scale >= 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def jpeg_uri(image: np.ndarray, quality: int) -> str:
    """A data URI of a picture uint8 (H, W, 3) in RGB; quality: 0..100."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    return data_uri("image/jpeg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def png_uri(values: np.ndarray) -> str:
    """A data URI of grey values uint8 (H, W), without loss."""
    return data_uri("image/png", cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def data_uri(kind: str, content: bytes) -> str:
    """A data URI of any content; kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
