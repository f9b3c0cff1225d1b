"""Names of folders that mean good images (OK), that may mean them (good_2), and that are defects (scratch)."""

from __future__ import annotations

import re
import unicodedata

GOOD, UNCLEAR, DEFECT = "good", "unclear", "defect"

# Compared without regard to case, spaces, hyphens, underscores and dots: "Defect-free" is "defectfree".
GOOD_NAMES = frozenset((
    "good", "ok", "okay", "normal", "pass", "passed", "io", "nondefective", "nondefected", "nondefect", "nodefect",
    "nodefects", "withoutdefect", "withoutdefects", "defectfree", "undefective", "nonanomalous", "nonanomaly",
    "noanomaly", "noanomalies", "anomalyfree", "nonfaulty", "nofault", "nofaults", "faultfree", "flawless", "undamaged",
    "nondamaged", "nodamage",
))
# May mean good, alone or with a number or a word that says nothing (good_1, clean parts), or say nothing:
UNCLEAR_NAMES = GOOD_NAMES | frozenset((
    "goods", "oks", "normals", "passes", "gut", "gute", "clean", "perfect", "reference", "references", "ref", "golden",
    "gold", "negative", "negatives", "neg", "positive", "positives", "pos", "healthy", "intact", "fine", "correct",
    "valid", "accept", "accepted", "acceptable", "approved", "mtfree", "nominal", "regular", "standard", "typical",
    "conform", "conforming", "conformant", "sound", "true", "none", "nothing", "passing", "pristine", "unblemished",
    "truenegative", "truenegatives", "tn", "baseline", "control", "controls", "inspec", "withinspec", "intolerance",
    "withintolerance", "compliant", "unknown", "unlabeled", "unlabelled", "unsorted", "mixed", "misc", "various",
    "gutteil", "gutteile", "guten", "inordnung", "einwandfrei", "iniet", "bon", "bons", "bonne", "bonnes", "bonetat",
    "sain", "sains", "saine", "saines", "conforme", "conformes", "bueno", "buenos", "buena", "buenas", "bien", "sano",
    "sanos", "sana", "sanas", "aprobado", "aprobados", "correcto", "correctos", "buono", "buoni", "buona", "buone",
    "conformi", "bom", "boa", "boas", "aprovado", "aprovados", "goed", "goede", "bra", "godkänd", "godkända",
    "godkendt", "felfri", "fejlfri", "feilfri", "hyvä", "hyvät", "dobry", "dobre", "dobrý", "dobré", "iyi", "sağlam",
    "normale", "normales", "normaal", "norma", "норма", "нормальный", "нормальные", "хорошо", "хороший", "хорошие",
    "годный", "годные", "исправный", "исправные", "良", "好", "好品", "良品", "正常", "正常品", "合格", "合格品",
    "ok品", "양품", "정상", "합격",
))
FREE = ("free", "frei", "vrij", "なし", "無し")  # end names such as scratch_free
CERTAIN_WORDS = frozenset(("good", "ok", "okay", "normal", "goods"))  # ask wherever one of these is among others
IMAGE_WORDS = frozenset((
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "sample", "samples", "data", "all",
    "test",
))
FILLERS = IMAGE_WORDS | frozenset((
    "part", "parts", "piece", "pieces", "item", "items", "product", "products", "object", "objects", "set", "class",
    "label", "type", "train", "training", "lot", "batch", "new", "old", "only", "very", "is", "the", "teil", "teile",
    "bild", "bilder", "qc", "qa", "copy",
))
NEGATIONS = frozenset((
    "no", "not", "non", "never", "un", "without", "nicht", "kein", "keine", "keinen", "ohne", "sans", "aucun", "aucune",
    "sin", "ningún", "ningun", "senza", "nessun", "sem", "nenhum", "zonder", "geen", "utan", "uden", "uten", "ingen",
    "bez", "без", "нет", "zero",
))
DEFECT_WORDS = re.compile(
    "(defec|defek|difett|defeit|défaut|defaut|anomal|anomá|fault|flaw|damage|error|fehler|mangel|mängel|schaden"
    "|beschädigung|fout|fallo|fel|fejl|feil|wad|дефект|брак)"
)
NEGATED_CHARACTERS = re.compile("^(无|無|没有|沒有).*(缺陷|瑕疵|欠陥|異常|异常|不良)")
NEGATED = re.compile("(ab|a|sub|un|no|non|not|nicht)(good|ok|okay|normal)")
WORDS = re.compile(r"[^\W\d_]+|\d+")
ZERO = re.compile("(class|label)?0+")


def kind_of(name: str) -> str:
    """GOOD for a name that usually means good images, UNCLEAR for one that may, DEFECT for any other."""
    whole = simplify(name)
    if whole in GOOD_NAMES:
        return GOOD
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))  # camelCase
    words = [word.casefold() for word in WORDS.findall(spaced)]
    told = [word for word in words if word not in FILLERS and not word.isdigit()]
    if whole in UNCLEAR_NAMES or "".join(told) in UNCLEAR_NAMES or ZERO.fullmatch(whole) or whole.endswith(FREE):
        return UNCLEAR
    if NEGATED_CHARACTERS.match(whole) or (not told and not IMAGE_WORDS.isdisjoint(words)):  # "images"
        return UNCLEAR
    negated = not NEGATIONS.isdisjoint(words)
    if negated and any(DEFECT_WORDS.match(word) for word in words):
        return UNCLEAR  # "no visible defects"
    if negated or NEGATED.search(whole):
        return DEFECT
    certain = not CERTAIN_WORDS.isdisjoint(words) or whole.startswith(("good", "normal"))
    return UNCLEAR if certain or whole.endswith(("good", "normal")) else DEFECT


def simplify(name: str) -> str:
    """A name without what people vary: case, spaces, hyphens, underscores, dots, and forms of the same character."""
    return re.sub(r"[\s_.\-]+", "", unicodedata.normalize("NFKC", name).casefold())
