"""Sets of flags for train.py that one word stands for; flags that are given win. None is "auto"."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "own": {  # photographs of one's own: no download, no aligned objects, and a verdict in minutes
        "backbone": "efficientnet_lite0", "weights": "bundled", "aux_path": "builtin", "recipe": "robust",
        "calibration": None, "far": None, "look": None, "epochs_stage1": None, "epochs_stage2": None,
    },
}
