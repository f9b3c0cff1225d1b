"""Training images of every category of the three data sets.

MVTec AD: table 1 of Bergmann et al., IJCV 2021. VisA: counted in split_csv/1cls.csv as it comes with the data set (rows
of split "train"). MVTec 3D-AD: table 1 of Bergmann et al., VISAPP 2022. The totals are those of the publications.
"""

from __future__ import annotations

TRAINING_IMAGES = {
    "mvtec": {
        "bottle": 209, "cable": 224, "capsule": 219, "carpet": 280, "grid": 264, "hazelnut": 391, "leather": 245,
        "metal_nut": 220, "pill": 267, "screw": 320, "tile": 230, "toothbrush": 60, "transistor": 213, "wood": 247,
        "zipper": 240,
    },
    "visa": {
        "candle": 900, "capsules": 542, "cashew": 450, "chewinggum": 453, "fryum": 450, "macaroni1": 900,
        "macaroni2": 900, "pcb1": 904, "pcb2": 901, "pcb3": 905, "pcb4": 904, "pipe_fryum": 450,
    },
    "mvtec3d": {
        "bagel": 244, "cable_gland": 223, "carrot": 286, "cookie": 210, "dowel": 288, "foam": 236, "peach": 361,
        "potato": 300, "rope": 298, "tire": 210,
    },
}
TOTALS = {"mvtec": 3629, "visa": 8659, "mvtec3d": 2656}
