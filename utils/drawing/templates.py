"""HTML from Jinja templates, in which every value is text: escaped, and printable.

    render = open_templates(Path(__file__).parent / "templates")
    page = render("page.html", title="<b>\n")                # &lt;b&gt;\n, with a backslash
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
