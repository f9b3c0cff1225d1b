"""The app's page, with Gradio, to be imported in `serving.private_folder`.

The detector runs once an image; a moved threshold judges its map and score anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from threading import Event

import gradio as gr
from markupsafe import escape

from utils.app import session
from utils.app.desk import MOST_WAITING, Desk
from utils.app.marking import Marking
from utils.app.serving import Limits
from utils.app.session import FALSE_ALARMS, NONE, PERCENT, SCORE
from utils.app.uploads import PlainFiles
from utils.app.views import TEMPLATES, Visit, download_link, text_panel
from utils.detection.detector import Detector
from utils.system.errors import UsageError

LOOKS = {  # for Gradio to serve the page with
    "theme": gr.themes.Base(
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ),
    "css_paths": [TEMPLATES / "app.css"],
}
COLUMN_WIDTHS = ["170px", "105px", "95px", "80px", "400px"]
KEPT_SECONDS, CLEARED_EVERY = 3600, 300  # of uploads
MOST_SESSIONS = 8  # pages whose results are kept
MODEL = "model"  # what its handlers take turns for
LIGHT_THREADS = 2  # for handlers that need no model; each may read an image of the most pixels


class Page:
    """The page of a detector. folder: below which images are scored by path; stopping: set when the server ends."""

    def __init__(self, detector: Detector, limits: Limits, folder: Path | None, workers: int, stopping: Event):
        self.detector = replace(detector, view=PlainFiles(**vars(detector.view)))
        self.limits, self.folder, self.workers = limits, folder, workers
        self.model, self.light = (Desk(threads, limits.seconds, stopping) for threads in (1, LIGHT_THREADS))

    def build(self) -> gr.Blocks:
        title = f"Anomaly detection: {self.detector.category}"
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(CLEARED_EVERY, KEPT_SECONDS)) as blocks:
            blocks.state_session_capacity = MOST_SESSIONS
            self.visit = gr.State(Visit())
            gr.HTML(text_panel(title, "heading"))
            with gr.Row(elem_id="columns"):
                with gr.Column(elem_id="images"):
                    self._build_sources()
                with gr.Column(elem_id="found"):
                    self.verdict, self.picture = gr.HTML(), gr.HTML()
                with gr.Column(elem_id="threshold"):
                    self.histogram = gr.HTML()
                    self._build_threshold()
            self.marking = Marking(self.visit)
            self._connect(blocks)
        blocks.queue(max_size=MOST_WAITING)
        for function in blocks.fns.values():  # all handlers, those to come too
            desk = self.model if function.concurrency_id == MODEL else self.light
            function.fn = _answered(function.fn, desk)
        return blocks

    def _build_sources(self) -> None:
        limits = f"{self.limits.megabytes:g} MB and {self.limits.pixels / 1e6:.3g} megapixels"
        gr.HTML(text_panel(f"At most {limits} an image, {session.MOST_IMAGES} images at a time.", "limits"))
        with gr.Tabs():
            with gr.Tab("Files"):
                self.files = gr.File(file_count="multiple", label="Drop one image or several", height=190)
            with gr.Tab("Camera"):
                self.camera = gr.Image(
                    sources=["webcam"], type="filepath", image_mode=None, label="Camera", height=320, buttons=[],
                    webcam_options=gr.WebcamOptions(mirror=False),  # a mirrored part is another one
                )
            # Gradio makes an empty file for each upload, and opens photographs with any of Pillow's readers
            self.files.preprocess = lambda files: [file.path for file in files or []]
            self.camera.preprocess = lambda photograph: photograph and photograph.path
            if self.folder:
                with gr.Tab("Folder"):
                    self.path = gr.Textbox(".", label=f"Folder below {self.folder.resolve().name}")
                    self.score_button = gr.Button("Score the folder", variant="primary")
        with gr.Column(visible=False, elem_id="table") as self.several:
            self.table = gr.Dataframe(
                headers=list(session.HEADINGS), datatype="str", interactive=False, column_widths=COLUMN_WIDTHS,
                buttons=[], max_height=320, label="Images: choose a row to look at one",
            )
            self.download = gr.HTML()

    def _build_threshold(self) -> None:
        (kind, percent, score), (low, high, step) = session.first_threshold(self.detector), self._span(())
        lowest, highest = min(PERCENT[0], percent), max(PERCENT[1], percent)
        kinds = [FALSE_ALARMS if self.detector.thresholds else NONE, SCORE]
        self.kind = gr.Radio(kinds, value=kind, label="Threshold by", elem_id="kind")
        self.percent = gr.Slider(
            lowest, highest, percent, step=PERCENT[0], label="Good images that may be called anomalous, %",
            visible=kind == FALSE_ALARMS, elem_id="percent", buttons=[],
        )
        self.score = gr.Slider(
            low, high, score, step=step, label="Score above which an image is anomalous",
            visible=kind != FALSE_ALARMS, elem_id="score", buttons=[],
        )
        self.explanation = gr.HTML()

    def _connect(self, blocks: gr.Blocks) -> None:
        """Set what happens at each event. The model takes one visitor at a time; a dragged slider skips values."""
        setting = [self.kind, self.percent, self.score]
        views = [self.visit, self.verdict, self.picture, self.histogram, self.explanation]
        table = [self.several, self.table, self.download]
        model = {
            "outputs": [*views, *table, self.score], "show_progress_on": self.verdict, "concurrency_id": MODEL,
            "api_visibility": "private",
        }
        light = {"show_progress": "hidden", "api_visibility": "private"}
        judge = {"fn": self.judge, "inputs": [self.visit, *setting], "outputs": [*views, *table], **light}
        changes = [
            self.files.upload(self.score_files, [self.files, *setting], **model),
            self.files.clear(self.reset, setting, **model),
            self.camera.input(self.score_photograph, [self.camera, *setting], **model),
            self.table.select(self.choose, [self.visit, *setting], views, **light),
        ]
        if self.folder:
            asked = [self.score_button.click, self.path.submit]
            changes.append(gr.on(asked, self.score_folder, [self.path, *setting], **model))
        self.marking.connect(changes)
        gr.on([self.percent.input, self.score.input], trigger_mode="always_last", **judge)
        self.kind.input(self.change_kind, setting, [self.percent, self.score], **light).then(**judge)
        blocks.load(**judge)

    # What the page calls

    def score_files(self, files: list[str] | None, *setting, progress=gr.Progress()):  # noqa: B008
        return self._score(session.name_files(map(Path, files or [])), setting, progress)

    def score_photograph(self, path: str | None, *setting, progress=gr.Progress()):  # noqa: B008
        return self._score({"photograph": Path(path)} if path else {}, setting, progress)

    def score_folder(self, folder: str, *setting, progress=gr.Progress()):  # noqa: B008
        return self._score(session.images_below(self.folder, folder), setting, progress)

    def reset(self, *setting):
        return self._score({}, setting, None)

    def choose(self, event: gr.SelectData, visit: Visit, *setting):
        visit = Visit.of(visit.results.choose(event.row_value[0]), self.detector)
        return visit, *visit.panels(self._detector(setting))

    def judge(self, visit: Visit, *setting):
        detector = self._detector(setting)
        return self._outputs(replace(visit, results=session.judge_again(visit.results, detector)), detector)

    def change_kind(self, kind: str, percent: float, score: float):
        """Show the slider of this kind; that of scores begins at the threshold that there is."""
        start = self._detector((FALSE_ALARMS, percent, score)).image_threshold if self.detector.thresholds else score
        by_rate = kind == FALSE_ALARMS
        return gr.Slider(visible=by_rate), gr.Slider(visible=not by_rate, value=start)

    # Their parts

    def _detector(self, setting: Sequence) -> Detector:
        return session.with_threshold(self.detector, *setting)

    def _score(self, named: Mapping[str, Path], setting: Sequence, progress: gr.Progress | None) -> tuple:
        def report(done: int, of: int) -> None:
            self.model.check()
            progress((done, of), unit="images")

        detector = self._detector(setting)
        results = session.score_all(detector, named, self.workers, report)
        low, high, step = self._span(results.scores)
        slider = gr.Slider(minimum=low, maximum=high, step=step)
        return *self._outputs(Visit.of(results, self.detector), detector), slider

    def _span(self, scores: Sequence[float]) -> tuple[float, float, float]:
        thresholds, start = self.detector.thresholds, self.detector.image_threshold or 0.0
        return session.score_span([*(thresholds.scores if thresholds else ()), start, *scores])

    def _outputs(self, visit: Visit, detector: Detector) -> tuple:
        results, several = visit.results, len(visit.results.records) > 1
        rows, link = (session.table_rows(results), download_link(session.csv_of(results))) if several else ([], "")
        return visit, *visit.panels(detector), gr.Column(visible=several), rows, link


def _answered(function: Callable, desk: Desk) -> Callable:
    """Let a handler work at the desk, and show errors that its user can mend."""

    @wraps(function)
    async def answer(*values: object) -> object:
        try:
            return await desk.run(function, *values)
        except UsageError as error:
            raise gr.Error(str(escape(str(error))), print_exception=False) from error

    return answer
