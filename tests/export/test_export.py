"""Exported files against PyTorch: the same scores and maps, their metadata, what they need, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.export_accuracy import open_file
from datasets.levels import EARLIER_LEVELS
from datasets.view import WHOLE, View
from tests.support.commands import ROOT, run_export
from tests.support.trees import make_folder, write_image
from tests.support.untrained import CROPPED, make_run, photographs
from utils.detection.model_file import ExportedModel, Facts
from utils.detection.prediction import Predictor
from utils.detection.thresholds import GIVEN, Thresholds, write_thresholds
from utils.export.formats import FORMATS, MEASURED, ExportSource, export
from utils.system import packages as module
from utils.system.errors import MissingPackage, ModelFileError, RunError, UsageError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {
    "published": ("aand", "published"), "robust": ("aand", "robust"), "rd4ad": ("rd4ad", "published"),
    "patchcore": ("patchcore", "published"),
}
THRESHOLDS = Thresholds((0.5, 1.25), ((0, 1.25), (9, 0.75)), 4096, GIVEN, 0.4)

class Files:
    """Run folders and what was exported of them, each made when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, case):
        run = self.folder / case
        if not run.exists():
            make_run(run, *CASES[case])
            write_thresholds(run, "bottle", THRESHOLDS)
        return run

    def file(self, case, kind, precision="fp32"):
        path = self.folder / f"{case}-{kind}-{precision}{FORMATS[kind].suffixes[0]}"
        if not path.exists():
            images = list(photographs(4)) if precision == "int8" else ()
            export(ExportSource.of(self.run(case), "bottle"), kind, path, precision, images)
        return path

    def expected(self, case, images):
        """Maps and scores as test.py has them."""
        source = ExportSource.of(self.run(case), "bottle")
        shown = np.stack([source.facts.view.show(image, 32) for image in images])
        return Predictor.of(source.model, 32, source.facts.view, batch_size=8).maps(shown)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("exported"))


ALIKE = [(case, kind) for case in CASES for kind in FORMATS if (case, kind) != ("published", "openvino")]


@pytest.mark.parametrize(("case", "kind"), ALIKE)
def test_any_batch_and_size_gives_the_scores_and_maps_of_pytorch(files, case, kind):
    run = open_file(files.file(case, kind), threads=1)
    for count, height, width in [(1, 45, 70), (3, 45, 70), (2, 20, 100)]:
        images = photographs(count, height, width)
        maps, scores = run(images)
        expected_maps, expected = files.expected(case, images)
        assert maps.shape == (count, 32, 32) and scores.shape == (count,)
        np.testing.assert_allclose(scores, expected, rtol=1e-3)
        np.testing.assert_allclose(maps, expected_maps, atol=2e-3)


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "fp16"), ("onnx", "int8"), ("pt2", "bf16")])
def test_fewer_bits_stay_near_and_say_so(files, kind, precision):
    path, images = files.file("rd4ad", kind, precision), photographs()
    _, scores = open_file(path, threads=1)(images)
    np.testing.assert_allclose(scores, files.expected("rd4ad", images)[1], rtol=0.1)
    assert path.stat().st_size < 0.7 * files.file("rd4ad", kind).stat().st_size
    if kind == "onnx":
        assert ExportedModel(path).facts.precision == precision


@pytest.mark.parametrize(("case", "measured"), [("robust", 33 + 3), ("rd4ad", 0)])
def test_int8_leaves_what_measures_in_float(files, case, measured):
    """A memory a level and the Gaussian's two directions; of a standardised model the pretrained network too, and what
    reads the features that are compared."""
    import onnx

    nodes = onnx.load(files.file(case, "onnx", "int8")).graph.node
    quantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    kept = [node.input[1] for node in nodes if node.op_type == "Conv" and node.input[1] not in quantized]
    computed = 3 + 2 if case == "robust" else 2
    assert len([name for name in kept if not name.startswith(MEASURED)]) == computed, kept
    assert len([name for name in kept if name.startswith(MEASURED)]) == measured
    assert sum(node.op_type == "Conv" for node in nodes) > (50 if case == "robust" else 20)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_of_a_standardised_model_stays_near(files, kind):
    """With the teacher, or what reads its features, in eight bits as well, scores are 6 % away in OpenVINO."""
    images = photographs(6)
    _, scores = open_file(files.file("robust", kind, "int8"), threads=1)(images)
    np.testing.assert_allclose(scores, files.expected("robust", images)[1], rtol=5e-3)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_metadata_come_back(files, kind):
    facts = ExportedModel(files.file("robust", kind)).facts
    expected = Facts("bottle", "aand", "efficientnet_lite0", "robust", 32, CROPPED, "fp32", THRESHOLDS)
    assert replace(facts, opset=None) == expected
    assert facts.opset == (18 if kind == "onnx" else None)
    rd4ad = ExportedModel(files.file("rd4ad", "onnx")).facts
    assert (rd4ad.method, rd4ad.view) == ("rd4ad", View(levels=EARLIER_LEVELS))


def test_a_run_without_thresholds_has_none_and_damaged_ones_are_named(files, tmp_path):
    run = make_run(tmp_path / "run", "rd4ad")
    assert ExportSource.of(run, "bottle").facts.thresholds is None
    for content in ("{", "[1]"):
        (run / "checkpoints" / "bottle" / "thresholds.json").write_text(content)
        with pytest.raises(RunError, match=r"thresholds\.json cannot be read"):
            ExportSource.of(run, "bottle")


def in_new_process(code, cwd, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_running_needs_no_torch(files, tmp_path, kind):
    photograph = write_image(tmp_path / "photo.png", photographs(1)[0])
    code = (
        "import sys; from utils.detection.model_file import ExportedModel; "
        "scores = ExportedModel(sys.argv[1]).score(sys.argv[2:]);"
        "assert 'torch' not in sys.modules; print(*scores)"
    )
    done = in_new_process(code, ROOT, files.file("robust", kind), photograph, photograph)
    assert done.returncode == 0, done.stderr
    expected = files.expected("robust", photographs(1))[1].repeat(2)
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected, rtol=1e-3)


def test_the_snippet_of_the_documentation_runs_with_onnxruntime_alone(files, tmp_path):
    snippet = re.search(r"```python\n(import json.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)[1]
    assert len([line for line in snippet.splitlines() if line]) <= 12
    (tmp_path / "bottle.onnx").write_bytes(files.file("robust", "onnx").read_bytes())
    write_image(tmp_path / "photo.png", photographs(1)[0])
    done = in_new_process(snippet + "\nimport sys\nassert not {'torch', 'utils'} & set(sys.modules)", tmp_path)
    assert done.returncode == 0, done.stderr
    score, decision = done.stdout.split()
    expected = files.expected("robust", photographs(1))[1][0]
    assert float(score) == pytest.approx(expected, rel=1e-3)
    assert decision == str(bool(expected > THRESHOLDS.image_threshold))


def foreign_onnx(path):
    """A model that somebody else made."""
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return model


def test_damaged_and_foreign_files_are_one_error_each(files, tmp_path):
    import onnx

    whole = files.file("rd4ad", "onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("nothing")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.xml").write_text("<net")
    (tmp_path / "alone.xml").write_bytes(files.file("rd4ad", "openvino").read_bytes())  # without its .bin
    model = foreign_onnx(tmp_path / "foreign.onnx")
    texts = {"later": '{"version": 2}', "json": "{", "list": "[]", "few": '{"version": 1, "category": "bottle"}'}
    for name, text in texts.items():
        onnx.helper.set_model_props(model, {"aand": text})
        onnx.save(model, tmp_path / f"{name}.onnx")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 10
    for path in paths:
        with pytest.raises(ModelFileError, match=re.escape(str(path))) as caught:
            ExportedModel(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match=r"not made by scripts/export\.py"):
        ExportedModel(tmp_path / "foreign.onnx")
    others = [("no.onnx", "there is no model file"), ("x.pt2", r"torch\.export\.load"), ("x.txt", "no model file")]
    for name, message in others:
        with pytest.raises(ModelFileError, match=message):
            ExportedModel(tmp_path / name)


@pytest.mark.parametrize(("name", "value"), [("image_size", True), ("category", 3), ("precision", "fp8"),
                                             ("view", {}), ("thresholds", [1]), ("opset", "18")])
def test_metadata_of_another_kind_are_refused(name, value):
    facts = Facts("bottle", "aand", "resnet18", "published", 32, WHOLE, "fp32")
    assert Facts.from_text(facts.to_text()) == facts
    with pytest.raises(ValueError, match=name if name != "view" else "a view has"):
        Facts.from_text(json.dumps(json.loads(facts.to_text()) | {name: value}))


@pytest.mark.parametrize(("shape", "kind"), [((1, 8, 8, 3), float), ((8, 8, 3), np.uint8), ((1, 8, 8, 4), np.uint8),
                                             ((0, 8, 8, 3), np.uint8)])
def test_other_arrays_than_images_are_refused(files, shape, kind):
    with pytest.raises(ValueError, match="images must be uint8"):
        ExportedModel(files.file("rd4ad", "onnx")).run(np.zeros(shape, kind))


def test_a_missing_package_is_named_with_what_installs_it(files, monkeypatch, tmp_path):
    def nothing(name):
        raise ImportError(f"No module named {name!r}")

    path, run = files.file("rd4ad", "onnx"), files.run("rd4ad")
    monkeypatch.setattr(module, "import_module", nothing)
    with pytest.raises(MissingPackage, match=r"onnxruntime: pip install -r requirements-deploy\.txt"):
        ExportedModel(path)
    result = run_export(tmp_path, run, "--category", "bottle", "--format", "onnx")
    assert (result.status, len(result.errors)) == (2, 1)
    assert "needs the package onnx: pip install -r requirements-deploy.txt" in result.err


def test_a_precision_that_a_format_lacks_is_refused(files, tmp_path):
    source = ExportSource.of(files.run("rd4ad"), "bottle")
    for kind, row in FORMATS.items():
        for precision in {"fp32", "fp16", "bf16", "int8"} - set(row.precisions):
            with pytest.raises(UsageError, match=f"`format` {kind} has no `precision` {precision}"):
                export(source, kind, tmp_path / "x", precision)
    with pytest.raises(UsageError, match="images of good parts"):
        export(source, "onnx", tmp_path / "x.onnx", "int8")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_files_and_names_what_is_wrong(tmp_path):
    data = make_folder(tmp_path / "data", ["bottle"], train=3)
    make_run(tmp_path / "run", "rd4ad", data_root=str(data))
    result = run_export(tmp_path, "run", "--category", "bottle", "--format", "torchscript")
    assert result.status == 0
    assert re.fullmatch(r"tracing the model( \(after \d+ s\))?\n", result.err)
    assert re.fullmatch(r"wrote run/exported/bottle\.pt \(\d+\.\d MB\)\n", result.out)
    result = run_export(tmp_path, "run", "--category", "bottle", "--format", "openvino", "--precision", "int8",
                        "--output", "line/part.xml")
    assert result.status == 0, result.err
    assert sorted(path.name for path in (tmp_path / "line").iterdir()) == ["part.bin", "part.xml"]
    phases = [re.sub(r" \(after \d+ s\)$", "", line) for line in result.err.splitlines()]
    assert [phase for phase in phases if "WARNING" not in phase] == [
        "building the graph", "translating it to ONNX", "quantising it to int8, by 3 images",
        "converting it to OpenVINO",
    ]
    photograph = next((data / "bottle" / "train" / "good").iterdir())
    assert ExportedModel(tmp_path / "line" / "part.xml").score([photograph]).shape == (1,)
    for arguments, message in [
        (("run", "--category", "cup", "--format", "pt2"), "run has no trained cup; it has: bottle"),
        (("nowhere", "--category", "bottle", "--format", "pt2"), "not a run folder"),
        (("run", "--category", "bottle", "--format", "pt2", "--output", "x.onnx"), "must end in .pt2"),
        (("run", "--category", "bottle", "--format", "onnx", "--precision", "int8", "--images", "."), "no images"),
        (("run", "--category", "bottle", "--format", "tflite"), "invalid choice"),
    ]:
        result = run_export(tmp_path, *arguments)
        assert (result.status, len(result.errors)) == (2, 1), result.err
        assert message in result.errors[0]


@pytest.mark.skipif(not (ROOT / "data/mvtec/bottle").is_dir(), reason="MVTec AD's bottle is not there")
def test_real_photographs_are_scored_alike(files):
    paths = sorted((ROOT / "data/mvtec/bottle/test").glob("*/00[0-3].png"))
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    maps, scores = ExportedModel(files.file("robust", "onnx")).run(images)
    expected_maps, expected = files.expected("robust", images)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    np.testing.assert_allclose(maps, expected_maps, atol=2e-3)
