"""The numbers of a glTF file: buffers, the views of them, and accessors that say what the bytes mean.

Section 3.6 "Binary Data Storage" of the glTF 2.0 specification (Khronos Group).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from pipeline.arrays import Rejected
from pipeline.meshes.gltf_json import Document, Part, damaged
from pipeline.meshes.text import Limits, quoted

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
COMPRESSION = (
    "KHR_draco_mesh_compression",
    "KHR_meshopt_compression",
    "EXT_meshopt_compression",
)


class Accessors:
    """The accessors of a document. binary: the binary chunk of a GLB, or None; companions: the files beside it."""

    def __init__(
        self, document: Document, binary: bytes | None, companions: Mapping[str, bytes], limits: Limits
    ) -> None:
        self.document, self.binary, self.companions, self.limits = document, binary, companions, limits
        self.buffers: dict[int, bytes] = {}

    def values(self, part: Part, key: str, kind: str, *, or_zeros: bool = False) -> np.ndarray:
        """The values (count, width) of the accessor that a part names under a key; not to be written to.

        kind: its type, which decides the width. Whole numbers declared as normalised become fractions. An accessor
        without any values is one of zeros, and refused unless `or_zeros`.
        """
        accessor = self.document.named(part, key, "accessors")
        if accessor.text("type") != kind:
            raise Rejected(f"{accessor.name} is of type {quoted(accessor.text('type'))} where {kind} is needed")
        dtype, count = _dtype(accessor), accessor.whole("count")
        if accessor.has("bufferView"):
            values = self._stored(accessor, dtype, count, WIDTHS[kind])
        elif accessor.has("sparse") or or_zeros:
            values = self._zeros(dtype, count, WIDTHS[kind])
        else:
            raise self._without_values(accessor)
        if accessor.has("sparse"):
            values = self._replaced(values, accessor)
        if accessor.values.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / np.iinfo(dtype).max, -1)
        return values

    def of_vertices(self, part: Part, key: str, kind: str, count: int, *, or_zeros: bool = False) -> np.ndarray:
        """The values of an accessor that must have one for each of `count` vertices."""
        values = self.values(part, key, kind, or_zeros=or_zeros)
        if len(values) != count:
            raise Rejected(f"an accessor has {len(values)} values for {count} vertices: {key} of {part.name}")
        return values

    def _stored(self, owner: Part, dtype: np.dtype, count: int, width: int) -> np.ndarray:
        """The values (count, width) that lie in the bufferView and from the byteOffset that a part names."""
        view = self.document.named(owner, "bufferView", "bufferViews")
        size = dtype.itemsize * width
        stride = view.whole("byteStride", size)
        inner, outer = owner.whole("byteOffset", 0), view.whole("byteOffset", 0)
        needed = inner + stride * (count - 1) + size
        buffer = self._buffer(view)
        if min(inner, outer, stride, count) < 0 or needed > view.whole("byteLength") or outer + needed > len(buffer):
            raise Rejected(f"an accessor of {count} values reaches beyond its buffer: {owner.name}")
        self.limits.check(count if width == 3 else 0, count // 3 if width == 1 else 0)
        if stride < size:
            raise damaged(f"{view.name} has a byteStride of {stride}, less than the {size} bytes of one value")
        if count == 0:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, buffer, outer + inner, (stride, dtype.itemsize))

    def _zeros(self, dtype: np.dtype, count: int, width: int) -> np.ndarray:
        """Zeros (count, width): the only values that take more memory than they have bytes in the file."""
        self.limits.check(max(count * width // 3, count), 0)
        return np.zeros((count, width), dtype)

    def _replaced(self, values: np.ndarray, accessor: Part) -> np.ndarray:
        """The values with those that an accessor's "sparse" names replaced by others."""
        sparse = accessor.part("sparse")
        count = sparse.whole("count")
        if count > len(values):
            raise damaged(f"{accessor.name} replaces {count} values of {len(values)}")
        indices, others = sparse.part("indices"), sparse.part("values")
        dtype = _dtype(indices)
        if dtype.kind != "u":
            raise damaged(f"{accessor.name} has sparse indices of a componentType with signs or fractions")
        rows = self._stored(indices, dtype, count, 1)[:, 0]
        if count and rows.max() >= len(values):
            raise damaged(f"{accessor.name} replaces value {rows.max()} of {len(values)}")
        replaced = np.array(values)
        replaced[rows] = self._stored(others, values.dtype, count, values.shape[1])
        return replaced

    def _without_values(self, accessor: Part) -> Rejected:
        used = [name for name in COMPRESSION if name in self.document.texts("extensionsUsed")]
        if used:
            return Rejected(f"the geometry is compressed with {used[0]}, which is not read")
        return Rejected(
            f"{accessor.name} has no bufferView; where values are sparse or empty, only sparse ones are read"
        )

    def _buffer(self, view: Part) -> bytes:
        index = view.whole("buffer")
        if index not in self.buffers:
            self.buffers[index] = self._load(self.document.item("buffers", index, view.name), index)
        return self.buffers[index]

    def _load(self, buffer: Part, index: int) -> bytes:
        if not buffer.has("uri"):
            if index > 0:
                raise Rejected(f"{buffer.name} has no uri; only buffer 0 may be the binary chunk of a GLB")
            if self.binary is None:
                raise Rejected(f"{buffer.name} has no uri, and the file has no binary chunk")
            return self.binary
        uri = buffer.text("uri")
        if uri.startswith("data:"):
            return _embedded(uri, buffer.name)
        for name in (uri, unquote(uri)):
            if name in self.companions:
                return self.companions[name]
        raise Rejected(f"the geometry is in another file, {quoted(uri)}, which is not there")


def _dtype(part: Part) -> np.dtype:
    component = part.whole("componentType")
    if component not in COMPONENTS:
        known = ", ".join(map(str, COMPONENTS))
        raise damaged(f"{part.name} has the componentType {component}, which is none of {known}")
    return np.dtype(COMPONENTS[component])


def _embedded(uri: str, name: str) -> bytes:
    """The bytes that a data URI holds (RFC 2397)."""
    head, _, text = uri.partition(",")
    content = unquote_to_bytes(text)
    if not head.endswith(";base64"):
        return content
    try:
        return base64.b64decode(content)
    except binascii.Error as error:
        raise damaged(f"the data in the uri of {name} are not base64 ({error})") from None
