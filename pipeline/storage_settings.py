"""How precisely samples are stored: the settings of `pipeline.storage`.

They stand apart from it because the heads of the sampling stages name them, and a head loads no numpy.
"""

from __future__ import annotations

from typing import Literal

from pipeline.settings import Settings


class StorageSettings(Settings):
    """Precision of stored samples. Labels are computed from the rounded points, so rounding never makes one wrong."""

    points: Literal["float32", "float16", "uint16"] = "uint16"
    """Coordinates, canonical units. uint16: 65535 steps over the points' range, 6 bytes a point, error per axis at
    most 9e-6 in the volume's cube and 1.6e-5 within one unit of the centre. float16: 6 bytes, error 1.2e-4 near 0.5 and
    2.4e-4 near 1. float32: 12 bytes, error 3e-8."""

    normals: Literal["float32", "float16", "oct16", "oct8"] = "oct8"
    """Unit normals. oct8: octahedral, 2 bytes, error at most 0.96 degrees. oct16: octahedral, 4 bytes, 0.004 degrees.
    float16: 6 bytes, 0.024 degrees, length within 5e-4 of one. float32: 12 bytes, as computed."""

    sdf: Literal["float32", "float16"] = "float16"
    """Signed distances, canonical units. float16: 2 bytes, error 1/2048 of the value: 4e-6 at 0.01, 1.2e-4 at 0.5.
    float32: 4 bytes, as computed (6e-8)."""
