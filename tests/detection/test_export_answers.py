"""Model files whose answers are not those of our exports, and halves of two exports: one line, and nothing is done."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.view import WHOLE
from tests.support.commands import run_predict
from tests.support.trees import write_image
from tests.support.untrained import make_run, photographs
from utils.detection.model_file import ExportedModel, Facts
from utils.export.formats import ExportSource, export, write_pair
from utils.system.errors import ModelFileError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """A folder with exports of two models, old.xml and new.xml."""
    folder = tmp_path_factory.mktemp("exports")
    for name, recipe in (("old", "published"), ("new", "robust")):
        source = ExportSource.of(make_run(folder / name, recipe=recipe), "bottle")
        export(source, "openvino", folder / f"{name}.xml")
    return folder


@pytest.fixture(scope="module")
def onnx_file(exports) -> Path:
    export(ExportSource.of(exports / "old", "bottle"), "onnx", exports / "old.onnx")
    return exports / "old.onnx"


def our_onnx(path, facts, anomaly_map, score, kind="UINT8", inputs=("images",), shape=("N", "H", "W", 3)):
    """A model that says it is ours, and answers every image with the same numbers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name, value):
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

    values = {"anomaly_map": anomaly_map, "anomaly_score": score}
    values = {name: np.asarray(value) for name, value in values.items() if value is not None}
    graph = helper.make_graph(
        [constant(name, value) for name, value in values.items()], "g",
        [helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape) for name in inputs],
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None) for n, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"aand": facts.to_text()})
    onnx.save(model, path)
    return path


MAP, SCORE = np.zeros((1, 1, 32, 32), np.float32), np.zeros(1, np.float32)
ANSWERS = {
    "an empty map": (MAP[:, :, :0, :0], SCORE), "a map of another size": (MAP[:, :, :31, :31], SCORE),
    "a map without channel": (MAP[0], SCORE), "two maps": (np.concatenate([MAP, MAP]), SCORE),
    "a number": (MAP[0, 0, 0, 0], SCORE), "no score": (MAP, SCORE[:0]), "two scores": (MAP, np.zeros(2, np.float32)),
    "a score of no dimension": (MAP, SCORE[0]), "NaN": (MAP * np.nan, SCORE), "a score of NaN": (MAP, SCORE * np.nan),
    "infinite": (MAP, SCORE + np.inf), "whole numbers": (MAP.astype(np.int64), SCORE.astype(np.int64)),
    "a map alone": (MAP, None),
}
INPUTS = {
    "float images": {"kind": "FLOAT"}, "another name": {"inputs": ("x",)}, "two inputs": {"inputs": ("images", "more")},
    "three dimensions": {"shape": ("H", "W", 3)},
}


@pytest.mark.parametrize("case", [*ANSWERS, *INPUTS])
def test_a_model_with_other_shapes_is_refused_when_it_is_loaded(tmp_path, case):
    facts = Facts("bottle", "aand", "resnet18", "published", 32, WHOLE, "fp32", opset=18)
    path = our_onnx(tmp_path / "m.onnx", facts, MAP, SCORE)
    maps, scores = ExportedModel(path).run(photographs(1))  # these would do
    assert (maps.shape, scores.tolist()) == ((1, 32, 32), [0.0])
    our_onnx(path, facts, *ANSWERS.get(case, (MAP, SCORE)), **INPUTS.get(case, {}))
    with pytest.raises(ModelFileError, match=re.escape(f"{path} cannot be used; export it anew: ")) as caught:
        ExportedModel(path)
    assert "\n" not in str(caught.value)
    assert ("it takes " in str(caught.value)) == (case in INPUTS)
    assert ("it does not give anomaly_score" in str(caught.value)) == (case == "a map alone")
    write_image(tmp_path / "photo.png", photographs(1)[0])
    result = run_predict(tmp_path, "m.onnx", "photo.png", "--save_maps", "maps")
    assert (result.status, len(result.errors)) == (2, 1) and not (tmp_path / "maps").exists()


def test_an_answer_is_checked_after_each_run(tmp_path):
    facts = Facts("bottle", "aand", "resnet18", "published", 32, WHOLE, "fp32", opset=18)
    model = ExportedModel(our_onnx(tmp_path / "m.onnx", facts, MAP, SCORE))
    with pytest.raises(ModelFileError, match=r"m\.onnx gives no result: its maps are \(1, 1, 32, 32\), not \(2, "):
        model.run(photographs(2))
    model._compute = lambda images: [MAP + np.inf, SCORE]
    with pytest.raises(ModelFileError, match="gives no result: the model gives NaN or infinite values"):
        model.run(photographs(1))


@pytest.mark.parametrize(("height", "width"), [(70_000, 3), (3, 70_000)])
def test_an_image_that_would_become_far_larger_in_the_file_is_refused(tmp_path, height, width):
    """256 columns of 70,000 rows are more than 2**24 values; what is as long and less narrow has as many anyway."""
    facts = Facts("bottle", "aand", "resnet18", "published", 256, WHOLE, "fp32", opset=18)
    answer = np.zeros((1, 1, 256, 256), np.float32)
    path = our_onnx(tmp_path / "m.onnx", facts, answer, SCORE)
    model = ExportedModel(path)
    with pytest.raises(ModelFileError, match=f"as long and narrow as {width} x {height} pixels"):
        model.run(np.zeros((1, height, width, 3), np.uint8))
    model.run(np.zeros((1, 70_000, 130, 3), np.uint8))
    model.run(np.zeros((1, 60_000, 1, 3), np.uint8))
    write_image(tmp_path / "long.png", np.zeros((height, width), np.uint8))
    write_image(tmp_path / "photo.png", photographs(1)[0])
    result = run_predict(tmp_path, "m.onnx", "long.png", "photo.png", "--output", "found.jsonl")
    errors = [json.loads(line)["error"] for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert result.status == 1 and "as long and narrow as" in errors[0] and errors[1] is None


# OpenVINO's two files


def test_a_pipe_in_the_place_of_weights_is_not_waited_for(exports, tmp_path):
    shutil.copy(exports / "old.xml", tmp_path / "m.xml")
    os.mkfifo(tmp_path / "m.bin")
    with pytest.raises(ModelFileError, match=r"there is no file .*m\.bin"):
        ExportedModel(tmp_path / "m.xml")


def write_half(made, path, monkeypatch, stopped_at):
    """Write an export to where an older one is, stopped before the move of one of its files."""
    replace_file = Path.replace

    def dying(self, target):
        if Path(target).suffix == stopped_at:
            raise KeyboardInterrupt
        return replace_file(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            write_pair(made, path)


@pytest.mark.parametrize("stopped_at", [".bin", ".xml"])
@pytest.mark.parametrize("earlier", [False, True])  # from before there was a checksum
def test_an_export_over_another_leaves_no_mixture(exports, tmp_path, monkeypatch, stopped_at, earlier):
    path = tmp_path / "m.xml"
    for suffix in (".xml", ".bin"):
        shutil.copy(exports / f"old{suffix}", path.with_suffix(suffix))
    if earlier:
        path.write_text(re.sub(r"<aand_(weights|seal) [^>]*/>", "", path.read_text()))
    ExportedModel(path)
    write_half(exports / "new.xml", path, monkeypatch, stopped_at)
    with pytest.raises(ModelFileError, match=re.escape(str(path))):
        ExportedModel(path)
    write_pair(exports / "new.xml", path)
    assert ExportedModel(path).facts.recipe == "robust"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.bin", "m.xml"]


def test_weights_of_another_export_are_refused(exports, tmp_path):
    """Of the same shapes: the graph alone does not tell them apart."""
    path = tmp_path / "m.xml"
    shutil.copy(exports / "old.xml", path)
    weights = bytearray((exports / "old.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    named = f"{path.with_suffix('.bin')} is not the one that was written with it"
    with pytest.raises(ModelFileError, match=re.escape(named)):
        ExportedModel(path)


# Damage


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_changed_number_of_a_model_file_is_damage(exports, onnx_file, tmp_path, suffix):
    """Both packages run what is left of a file as long as it can be parsed."""
    path = tmp_path / f"m{suffix}"
    shutil.copy(exports / "old.bin", tmp_path / "m.bin")
    content = (exports / f"old{suffix}").read_bytes()
    path.write_bytes(content)
    ExportedModel(path)
    if suffix == ".onnx":
        place = len(content) // 2  # among the weights
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.write_bytes(content.replace(b"&quot;bottle&quot;", b"&quot;battle&quot;"))
    with pytest.raises(ModelFileError, match=re.escape(f"{path} cannot be used") + ".*it is damaged, or was chang"):
        ExportedModel(path)


def test_a_seal_is_the_checksum_of_the_file_without_it(onnx_file):
    content = onnx_file.read_bytes()
    (found,) = set(re.findall(rb"sha256 [0-9a-f]{64}", content))
    unsealed = content.replace(found, b"sha256 " + b"0" * 64)
    assert found.decode() == f"sha256 {hashlib.sha256(unsealed).hexdigest()}"
