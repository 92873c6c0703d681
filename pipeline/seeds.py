"""The only source of randomness: named streams under one root seed.

A stream belongs to a (stage, category/id), never to a position, so that shards, workers, order and restarts cannot
change a number.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(root_seed: int, *labels: str) -> int:
    """A 128-bit integer that depends on the root seed and every label."""
    text = "\x1f".join((str(int(root_seed)), *labels))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def rng_for(root_seed: int, *labels: str) -> np.random.Generator:
    """The generator of one stream, for example `rng_for(0, "sample_surface", "03001627/1a2b")`."""
    return np.random.default_rng(stream_seed(root_seed, *labels))


def torch_seed(root_seed: int, *labels: str) -> int:
    """The stream's seed in the range torch.Generator.manual_seed accepts (63 bits)."""
    return stream_seed(root_seed, *labels) >> 65
