"""Trained categories as a library: image files, Pillow images or arrays in, detections out; see detector.py."""

from utils.detection.detector import Detection, Detector, Region, load_detector
from utils.detection.prediction import Prediction, Predictor, load_predictor
from utils.detection.thresholds import Thresholds

__all__ = [
    "Detection", "Detector", "Prediction", "Predictor", "Region", "Thresholds", "load_detector", "load_predictor",
]
