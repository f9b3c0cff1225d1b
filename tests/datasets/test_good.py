"""Names of folders: which mean good images, which are asked about, and which are defects."""

from __future__ import annotations

import pytest

from datasets import DATASETS
from datasets.good import DEFECT, GOOD, UNCLEAR, kind_of


@pytest.mark.parametrize(
    "name",
    ["good", "Good", "GOOD", "ok", "OK", "Okay", "normal", "Normal", "pass", "PASSED", "non_defective", "Non-Defective",
     "no defect", "no_defects", "Defect-Free", "defect_free", "defectfree", "anomaly free", "non-anomalous", "io",
     "i.O.", "flawless", "undamaged", "ｇｏｏｄ"],
)
def test_usual_names_of_good(name):
    assert kind_of(name) == GOOD


@pytest.mark.parametrize(
    "name",
    ["gut", "clean", "perfect", "reference", "golden", "negative", "positive", "good_1", "good2", "ok2", "OK_3",
     "goods", "good images", "goodParts", "ok_parts", "normal_light", "very good", "clean_2", "healthy", "pass_1",
     "MT_Free", "scratch_free", "0", "00", "class_0", "none", "no visible defects", "no_anomaly_1", "without damage",
     "images", "all_images", "unknown", "unlabelled", "良品", "正常", "passed_qc", "QC passed", "in spec", "TN",
     "true_negative", "Gutteile", "iO-Teile", "in Ordnung", "fehlerfrei", "ohne Fehler", "kein_defekt", "bons",
     "sans défaut", "conforme", "sin_defecto", "sano", "buone", "senza difetti", "sem_defeito", "goede", "foutvrij",
     "felfri", "bez wad", "sağlam", "годные", "без дефектов", "正常品", "无缺陷", "無欠陥", "異常なし", "합격"],
)
def test_names_that_may_mean_good(name):
    assert kind_of(name) == UNCLEAR


@pytest.mark.parametrize(
    "name",
    ["NG", "ng", "defect", "defective", "bad", "anomaly", "anomalous", "abnormal", "Abnormal", "ko", "KO", "nok", "NOK",
     "not_ok", "not ok", "notok", "not good", "no_good", "NoGood", "nogood", "n.i.O.", "fail", "failed", "reject",
     "scratch", "goldfinger_scratch", "book", "token_missing", "clean_cut", "passage", "1", "type_2", "class_1",
     "missing", "broken_large", "free_end", "no_cap", "defect_1", "nicht in Ordnung", "non conforme", "kaputt",
     "Fehler", "défaut", "брак", "缺陷", "不良", "不合格", "brass"],
)
def test_defects(name):
    assert kind_of(name) == DEFECT


def test_no_published_defect_is_asked_about():
    readers = (DATASETS["mvtec"], DATASETS["mvtec3d"])
    names = [[name for defects in source.DEFECTS.values() for name in defects.split()] for source in readers]
    assert len(names[0]) == 73  # as the paper of MVTec AD says
    assert {kind_of(name) for name in names[0] + names[1]} == {DEFECT}
