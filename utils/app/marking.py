"""The section of the app's page in which a region of interest is marked, with Gradio, for train.py --roi."""

from __future__ import annotations

from collections.abc import Iterable

import gradio as gr

from utils.app.regions import (
    Corners,
    check_corners,
    corner_at,
    describe,
    marked_picture,
    pixels_to_mark,
    read_corners,
    write_corners,
)
from utils.app.views import Visit, marked_panel, text_panel
from utils.system.errors import UsageError

INTRODUCTION = (
    "Train on a part of the photograph. Click or tap two opposite corners of a box, or three and more of a polygon. "
    "What is dimmed will neither be learned nor give alarms. A click near the frame means the frame."
)
COMMAND = "python train.py --data_root DATA --roi region.json"


class Marking:
    """A closed section with the chosen photograph, whose corners are clicked. visit: the page's state."""

    def __init__(self, visit: gr.State):
        self.visit, self.corners, self.is_open = visit, gr.State(()), gr.State(False)
        with gr.Accordion("Region of interest", open=False, elem_id="region") as self.section:
            gr.HTML(text_panel(INTRODUCTION, "introduction"))
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    self.none = gr.HTML(text_panel("Add an image: it is shown here.", "none"))
                    self.picture = gr.Image(
                        interactive=False, buttons=[], label="Photograph", show_label=False, visible=False,
                        elem_id="marked",
                    )
                with gr.Column(scale=2, min_width=300):
                    with gr.Row():
                        self.undo_button = gr.Button("Undo", min_width=100)
                        self.clear_button = gr.Button("Remove all", min_width=100)
                    self.text = gr.Textbox(
                        label="Corners, which you can also type: x and y in percent, then Enter",
                        placeholder="10 20, 80 90", max_lines=1, elem_id="corners",
                    )
                    self.panel = gr.HTML(marked_panel(*describe(())))
                    self.command = gr.Textbox(
                        COMMAND, label="Then train with it; DATA: folder of the photographs", buttons=["copy"],
                        interactive=False, visible=False, lines=2, elem_id="command",
                    )

    def connect(self, changes: Iterable[gr.events.Dependency]) -> None:
        """Set what happens at each event; changes: those after which another photograph may be chosen."""
        light = {"show_progress": "hidden", "api_visibility": "private"}
        light["postprocess"] = False  # Gradio would make a file of the picture
        shown = [self.none, self.picture]
        marked = [self.corners, self.text, self.panel, self.command, *shown]
        state = [self.visit, self.corners]
        self.picture.select(self.add_corner, state, marked, trigger_mode="multiple", **light)
        self.undo_button.click(self.undo, state, marked, trigger_mode="multiple", **light)
        self.clear_button.click(self.clear, self.visit, marked, **light)
        self.text.submit(self.set_corners, [self.visit, self.text], marked, **light)
        self.section.expand(self.open, state, [self.is_open, *shown], **light)
        self.section.collapse(lambda: False, None, self.is_open, **light)
        for change in changes:
            change.success(self.show, [*state, self.is_open], shown, **light)

    # What the page calls

    def add_corner(self, event: gr.SelectData, visit: Visit, corners: Corners):
        if visit.picture is None:
            raise UsageError("There is no photograph to mark a region in; add an image.")
        size = pixels_to_mark(visit.picture.photograph).shape[:2]
        return self._marked(visit, check_corners((*corners, corner_at(event.index, size))))

    def undo(self, visit: Visit, corners: Corners):
        return self._marked(visit, corners[:-1])

    def clear(self, visit: Visit):
        return self._marked(visit, ())

    def set_corners(self, visit: Visit, text: str):
        return self._marked(visit, read_corners(text))

    def open(self, visit: Visit, corners: Corners):
        return True, *self.show(visit, corners, True)

    def show(self, visit: Visit, corners: Corners, is_open: bool):
        """Show the chosen photograph, where the section is open."""
        if not is_open:
            return gr.skip(), gr.skip()
        uri = visit.picture and marked_picture(visit.picture.photograph, corners)
        return gr.HTML(visible=not uri), gr.update(value=uri and {"url": uri}, visible=bool(uri))

    def _marked(self, visit: Visit, corners: Corners) -> tuple:
        said, content = describe(corners)
        panel, command = marked_panel(said, content), gr.Textbox(visible=bool(content))
        return corners, write_corners(corners), panel, command, *self.show(visit, corners, True)
