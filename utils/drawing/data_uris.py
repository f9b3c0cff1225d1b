"""Pictures and other contents as data URIs, for pages that fetch nothing."""

from __future__ import annotations

import base64

import cv2
import numpy as np


def jpeg_uri(image: np.ndarray, quality: int) -> str:
    """A data URI of a picture uint8 (H, W, 3) in RGB; quality: 0..100."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    return data_uri("image/jpeg", cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def png_uri(values: np.ndarray) -> str:
    """A data URI of grey values uint8 (H, W), without loss."""
    return data_uri("image/png", cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def data_uri(kind: str, content: bytes) -> str:
    """A data URI of any content; kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
