"""The text of a stage's product: what its bytes are in each of the four formats.

mesh  binary (safetensors), float64 vertices: any frame, any magnitude
off   OFF text, vertices rounded to float32, NOFF where they have normals; the figures travel in a comment line
arrays  binary (safetensors), each array in its encoding (`pipeline.storage`)
json  one JSON value

This decides bytes, and so it is part of every stage's code.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.settings import canonical_json

EXTENSIONS = {"mesh": "safetensors", "off": "off", "arrays": "safetensors", "json": "json"}
HEADER_KEY = "isomill"


def encode(product, kind: str) -> bytes:
    """The bytes of a product in one of the formats; equal products give equal bytes."""
    header = {"figures": product.figures, "status": product.status}
    if kind == "json":
        return (canonical_json({**header, "value": product.value}) + "\n").encode()
    if kind == "off":
        return _off_text(product.value, header).encode()
    if kind == "mesh":
        return _tensors({"vertices": product.value.vertices, "faces": product.value.faces}, header)
    from pipeline import storage

    encoding = {name: product.encoding.get(name) for name in sorted(product.value)}
    stored = {
        name: storage.encode(product.value[name], encoding[name]) if encoding[name] else product.value[name]
        for name in encoding
    }
    return _tensors(stored, {**header, "encoding": encoding})


def decode(content: bytes, kind: str):
    """The product that `encode` wrote."""
    from pipeline.arrays import Mesh, Product

    if kind == "json":
        row = json.loads(content)
        return Product(row["value"], row["figures"], status=row["status"])
    if kind == "off":
        mesh, header = _parse_off(content)
        return Product(mesh, header["figures"], status=header["status"])
    arrays, header = _read_tensors(content)
    if kind == "mesh":
        return Product(Mesh(arrays["vertices"], arrays["faces"]), header["figures"], status=header["status"])
    from pipeline import storage

    encoding = {name: tuple(kind) for name, kind in header["encoding"].items() if kind}
    value = {name: storage.decode(a, encoding[name]) if name in encoding else a for name, a in arrays.items()}
    return Product(value, header["figures"], encoding, header["status"])


def figures_of(content: bytes, kind: str) -> tuple[dict[str, Any], str]:
    """Figures and status of a stored product without decoding its arrays."""
    if kind == "json":
        header = json.loads(content)
    elif kind == "off":
        header = _off_header(content)
    else:
        header = tensor_description(content)
    return header["figures"], header["status"]


def _tensors(arrays: dict, header: dict) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    # One metadata entry only: the library writes several in no fixed order.
    return save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, {HEADER_KEY: canonical_json(header)})


def tensor_description(content: bytes) -> dict:
    """The JSON that stands with the tensors of a binary file, read without any library."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY])


def _read_tensors(content: bytes) -> tuple[dict, dict]:
    from safetensors.numpy import load

    return load(content), tensor_description(content)


def _off_text(mesh, header: dict) -> str:
    # Nine significant digits give every float32 back; one format string is many times faster than a loop.
    vertices, faces, keyword = mesh.vertices, mesh.faces, "OFF"
    if mesh.normals is not None:
        import numpy as np

        vertices, keyword = np.concatenate([vertices, mesh.normals], axis=1), "NOFF"
    row = " ".join(["%.9g"] * vertices.shape[1]) + "\n"
    lines = (row * len(vertices)) % tuple(vertices.ravel().tolist())
    corners = ("3 %d %d %d\n" * len(faces)) % tuple(faces.ravel().tolist())
    return f"{keyword}\n# {HEADER_KEY} {canonical_json(header)}\n{len(vertices)} {len(faces)} 0\n{lines}{corners}"


def _off_header(content: bytes) -> dict:
    line = content.split(b"\n", 2)[1].decode()
    return json.loads(line.removeprefix(f"# {HEADER_KEY} "))


def _parse_off(content: bytes):
    import numpy as np

    from pipeline.arrays import Mesh

    keyword, _, counts, body = content.split(b"\n", 3)
    n_vertices, n_faces = (int(n) for n in counts.split()[:2])
    numbers = np.fromstring(body, sep=" ")
    columns = 6 if keyword == b"NOFF" else 3
    rows = numbers[: columns * n_vertices].reshape(-1, columns).astype(np.float32)
    faces = numbers[columns * n_vertices :].reshape(n_faces, 4)[:, 1:]
    return Mesh(rows[:, :3], faces, rows[:, 3:] if columns == 6 else None), _off_header(content)
