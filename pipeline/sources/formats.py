"""Which files of a folder are shapes, judged by name and, where the name says nothing, by their first bytes."""

from __future__ import annotations

import json
import re

MESHES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
FORMAT_NAMES = "OBJ, OFF, PLY, STL, GLB, GLTF"

# Materials, pictures, texts and data that stand beside shapes and are none.
_BESIDE = re.compile(
    r".*\.(mtl|bin|png|jpe?g|gif|bmp|tga|tiff?|webp|dds|ktx2?|hdr|exr|svg"
    r"|txt|md|rst|csv|tsv|json|ya?ml|toml|ini|xml|html|pdf|bib|cff|lst|log|py|ipynb|sh|sha256|md5"
    r"|binvox|np[yz]|h5|hdf5|db)"
    r"|readme|licen[sc]es?|copying|notice|authors|changelog|citation|makefile|manifest",
    re.IGNORECASE | re.DOTALL,
)

HEAD_BYTES = 1024
_OBJ_LINE = re.compile(rb"^v[ \t]+-?[\d.]\S*[ \t]+-?[\d.]\S*[ \t]+-?[\d.]", re.MULTILINE)
_OFF_START = re.compile(rb"(ST|C|N|4|n)*OFF(\s|\d|$)")


def is_hidden(name: str) -> bool:
    """Files of the system rather than of the user."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def is_beside(name: str) -> bool:
    """True for companions of shapes and for texts, which are not listed at all."""
    return _BESIDE.fullmatch(name) is not None


def sniff(head: bytes, size: int) -> bool:
    """True where the first bytes of a file of `size` bytes are those of OFF, PLY, STL, GLB or OBJ."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"glTF") or re.match(rb"ply\s", text) or _OFF_START.match(text):
        return True
    if text.startswith(b"solid") and b"facet" in text:
        return True
    if len(head) >= 84 and size == 84 + 50 * int.from_bytes(head[80:84], "little") > 84:  # binary STL has no mark
        return True
    return b"\0" not in head and _OBJ_LINE.search(text) is not None


def gltf_buffers(content: bytes) -> list[str]:
    """The URIs of the buffers and files a .gltf needs beside it, as written; data embedded in it is left out.

    A GLB under that name needs nothing. Raises ValueError with what is wrong where the text is not glTF's JSON.
    """
    if content.startswith(b"glTF"):
        return []
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("its JSON is not an object")
    buffers = document.get("buffers") or []
    if isinstance(buffers, dict):
        raise ValueError("it names its buffers as version 1.0 does")
    if not isinstance(buffers, list) or not all(isinstance(buffer, dict) for buffer in buffers):
        raise ValueError("its buffers are not a list of objects")
    uris = [buffer.get("uri") for buffer in buffers]
    return list(dict.fromkeys(uri for uri in uris if isinstance(uri, str) and not uri.startswith("data:")))
