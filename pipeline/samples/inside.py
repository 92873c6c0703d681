"""The inside tests that label samples. Settings name them in their heads, so this module loads no library."""

from __future__ import annotations

from typing import Literal

InsideTest = Literal["rays", "parity", "waterproof"]
"""rays: parity of three rays, robust and fast (default). parity: crossings along z above and below are both odd, as
Occupancy Networks' libmesh. waterproof: parity that looks along other axes where a hole spoils it, as IF-Net. On a
closed mesh they differ in points on its surface only, and where rays meet edges."""
