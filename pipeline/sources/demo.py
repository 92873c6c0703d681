"""The embedded demo: shapes made by the project itself, zipped per category in ShapeNetCore.v2 layout.

Each archive holds `<synset>/<model id>/models/model_normalized.obj`. The meshes carry ShapeNet's own defects on
purpose: their parts always run into each other, and `DEFECTS` are spread over the shapes. Some shapes are broken
beyond use (`BROKEN`) and have to be rejected later. Shape k of a category depends on (seed, category, k) alone, so a
larger set keeps the bytes of a smaller one; the broken shapes have negative indices for the same reason.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.settings import Settings

Category = Literal["chair", "table", "airplane"]

SYNSETS: dict[str, str] = {"chair": "03001627", "table": "04379243", "airplane": "02691156"}


def _distinct(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    if len(set(categories)) < len(categories):
        raise ValueError(f"each category may be named once, received {', '.join(categories)}")
    return categories


class DemoSettings(Settings):
    """Which shapes the demo makes."""

    categories: Annotated[tuple[Category, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        "chair",
        "table",
        "airplane",
    )
    """Categories, each one archive."""

    shapes: int = Field(default=26, ge=1, le=100_000)
    """Usable shapes per category. More of them leave the others as they are."""

    broken: int = Field(default=2, ge=0, le=1000)
    """Shapes per category that are broken beyond use, to be rejected with a reason; on top of `shapes`."""

    seed: int = Field(default=0, ge=0)
    """Seed of all shapes; the model ids do not depend on it."""


import hashlib
import io
import zipfile
from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays import Mesh
from pipeline.seeds import rng_for
from pipeline.sources.demo_shapes import MAKERS, Part

DEFECTS = (
    "open_surface",  # caps are missing: at the hidden ends of legs or engines, one of them open to the outside
    "inner_walls",  # the largest part hides a smaller copy of itself
    "sheet",  # a seat, back, shelf, wing ... is one surface without thickness
    "polygons",  # quads and n-gons instead of triangles
    "duplicate_faces",  # a fifth of the faces twice, half of the copies facing inward
    "flipped_faces",  # a third of the faces facing inward
    "unwelded",  # every face has vertices of its own
    "loose_vertices",  # vertices of no face, one of them far outside
    "missing_material",  # material lines that name a file which is not there
)
BROKEN = ("no_faces", "nan_coordinates", "index_out_of_range", "degenerate_faces")

SHEETS = {"chair": ("back", "seat"), "table": ("shelf", "side", "top"), "airplane": ("wing",)}
OPENED = {"chair": ("leg", "column", "side"), "table": ("leg", "column", "side"), "airplane": ("engine", "tailplane")}
EXTRA_DEFECT_CHANCE = 0.06
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip member can carry


@dataclass(frozen=True)
class DemoShape:
    """One shape of the demo: its parts, and the names of what is wrong with them (of DEFECTS, or one of BROKEN)."""

    model_id: str
    parts: tuple[Part, ...]
    defects: tuple[str, ...]

    @property
    def mesh(self) -> Mesh:
        """All faces as triangles over all vertices, defects included."""
        offsets = np.cumsum([0, *(len(part.vertices) for part in self.parts)])
        faces = [triangles(part)[0] + start for part, start in zip(self.parts, offsets, strict=False)]
        return Mesh(np.concatenate([part.vertices for part in self.parts]), np.concatenate(faces))


def model_id(category: str, index: int) -> str:
    """32 hex digits, the same for every seed."""
    return hashlib.blake2b(f"demo/{category}/{index}".encode(), digest_size=16).hexdigest()


def taxonomy(settings: DemoSettings) -> list[dict]:
    """Rows of ShapeNet's taxonomy.json for the demo's categories."""
    count = settings.shapes + settings.broken
    return [
        {"synsetId": SYNSETS[name], "name": name, "children": [], "numInstances": count} for name in settings.categories
    ]


def make_archive(category: str, settings: DemoSettings) -> bytes:
    """A zip archive of all shapes of a category, usable and broken; equal settings give equal bytes.

    Raises KeyError for a category that the demo does not know.
    """
    shapes = [make_shape(category, index, settings) for index in range(-settings.broken, settings.shapes)]
    buffer = io.BytesIO()
    # Stored, not deflated: the bytes of a deflate stream depend on the zlib at hand.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for shape in sorted(shapes, key=lambda shape: shape.model_id):
            name = f"{SYNSETS[category]}/{shape.model_id}/models/model_normalized.obj"
            member = zipfile.ZipInfo(name, date_time=EPOCH)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, obj_text(shape))
    return buffer.getvalue()


def make_shape(category: str, index: int, settings: DemoSettings) -> DemoShape:
    """Shape `index` of a category; -1, -2, ... are the broken ones. Only `settings.seed` matters to it."""
    label = f"{category}/{index}"
    parts = placed(MAKERS[category](rng_for(settings.seed, "demo", label)), rng_for(settings.seed, "demo_place", label))
    rng = rng_for(settings.seed, "demo_defects", label)
    if index < 0:
        # Two further per category, so that a few of each show every kind.
        kind = BROKEN[(2 * list(SYNSETS).index(category) - index - 1) % len(BROKEN)]
        return DemoShape(model_id(category, index), tuple(break_shape(parts, kind)), (kind,))
    defects = tuple(
        name for k, name in enumerate(DEFECTS) if index % (len(DEFECTS) + 1) == k or rng.random() < EXTRA_DEFECT_CHANCE
    )
    return DemoShape(model_id(category, index), tuple(damage(parts, category, defects, rng)), defects)


def placed(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """Scale and position of ShapeNetCore.v2: the box's diagonal about 1, its centre near the origin but not at it."""
    corners = np.concatenate([part.vertices for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = rng.uniform(0.95, 1.05) / np.linalg.norm(high - low)
    centre = (low + high) / 2 + rng.uniform(-0.03, 0.03, 3)
    return [replace(part, vertices=(part.vertices - centre) * scale) for part in parts]


def damage(parts: list[Part], category: str, defects: tuple[str, ...], rng: np.random.Generator) -> list[Part]:
    """Apply the named defects: first those of whole parts, then those of faces, then those of vertices."""
    if "open_surface" in defects:
        parts = open_ends(parts, OPENED[category])
    if "inner_walls" in defects:
        parts = [*parts, inner_copy(max(parts, key=box_volume))]
    if "sheet" in defects:
        name = rng.choice([name for name in SHEETS[category] if any(part.name == name for part in parts)])
        parts = [one_sided(part) if part.name == name else part for part in parts]
    if "polygons" not in defects:
        parts = [replace(part, faces=triangles(part)) for part in parts]
    if "duplicate_faces" in defects:
        parts = [with_duplicates(part, rng) for part in parts]
    if "flipped_faces" in defects:
        parts = [with_flips(part, rng) for part in parts]
    if "unwelded" in defects:
        parts = [unwelded(part) for part in parts]
    return [*parts, loose_vertices(rng)] if "loose_vertices" in defects else parts


def open_ends(parts: list[Part], names: tuple[str, ...]) -> list[Part]:
    """Drop the far caps (inside other parts for legs) of the first kind of part present, and both of its first one."""
    name = next(name for name in names if any(part.name == name for part in parts))
    chosen = [i for i, part in enumerate(parts) if part.name == name]
    opened = list(parts)
    for i in chosen:
        sides, caps = parts[i].faces
        opened[i] = replace(parts[i], faces=(sides,) if i == chosen[0] else (sides, caps[:1]))
    return opened


def box_volume(part: Part) -> float:
    """Volume of the part's bounding box."""
    return float(np.prod(np.ptp(part.vertices, axis=0)))


def inner_copy(part: Part) -> Part:
    """The part at half size about the mean of its vertices, which puts it inside because the parts are convex."""
    centre = part.vertices.mean(axis=0)
    return replace(part, name=f"{part.name}_inside", vertices=(part.vertices + centre) / 2)


def one_sided(part: Part) -> Part:
    """Keep the faces on one broad side of a thin part, so that a surface without thickness is left."""
    normals = [area_vectors(part.vertices[block]) for block in part.faces]
    axis = np.abs(np.concatenate(normals)).sum(axis=0).argmax()
    facing = [n[:, axis] > 0.1 * np.linalg.norm(n, axis=1) for n in normals]
    kept = (block[keep] for block, keep in zip(part.faces, facing, strict=True) if keep.any())
    return compact(replace(part, faces=tuple(kept)))


def area_vectors(polygons: np.ndarray) -> np.ndarray:
    """Area times unit normal of planar polygons (n, k, 3) → (n, 3), by the shoelace formula about the first corner."""
    spokes = polygons - polygons[:, :1]
    return np.cross(spokes[:, 1:-1], spokes[:, 2:]).sum(axis=1) / 2


def compact(part: Part) -> Part:
    """The part without vertices that no face uses."""
    used = np.unique(np.concatenate([block.ravel() for block in part.faces]))
    return replace(part, vertices=part.vertices[used], faces=tuple(np.searchsorted(used, f) for f in part.faces))


def triangles(part: Part) -> tuple[np.ndarray]:
    """The faces as one block of triangles; convex polygons become fans."""
    fans = [
        np.stack([np.repeat(f[:, :1], f.shape[1] - 2, axis=1), f[:, 1:-1], f[:, 2:]], axis=-1).reshape(-1, 3)
        for f in part.faces
    ]
    return (np.concatenate(fans) if fans else np.zeros((0, 3), int),)


def with_duplicates(part: Part, rng: np.random.Generator) -> Part:
    """A fifth of the faces twice, every other copy facing inward."""
    blocks = []
    for faces in part.faces:
        chosen = rng.permutation(len(faces))[: max(1, len(faces) // 5)]
        copies = faces[chosen]
        copies[::2] = copies[::2, ::-1]
        blocks.append(np.concatenate([faces, copies]))
    return replace(part, faces=tuple(blocks))


def with_flips(part: Part, rng: np.random.Generator) -> Part:
    """A third of the faces facing inward."""
    blocks = []
    for faces in part.faces:
        flipped = rng.permutation(len(faces))[: max(1, len(faces) // 3)]
        blocks.append(faces.copy())
        blocks[-1][flipped] = faces[flipped, ::-1]
    return replace(part, faces=tuple(blocks))


def unwelded(part: Part) -> Part:
    """The part with vertices that no two faces share."""
    corners = np.concatenate([part.vertices[block].reshape(-1, 3) for block in part.faces])
    starts = np.cumsum([0, *(block.size for block in part.faces)])
    blocks = [start + np.arange(f.size).reshape(f.shape) for start, f in zip(starts, part.faces, strict=False)]
    return Part(part.name, corners, tuple(blocks))


def loose_vertices(rng: np.random.Generator) -> Part:
    """Vertices of no face; the first one lies far outside, where a careless bounding box would find it."""
    return Part("loose", np.concatenate([[(0.0, 0.0, 3.0)], rng.uniform(-0.2, 0.2, (6, 3))]), ())


def break_shape(parts: list[Part], kind: str) -> list[Part]:
    """Make a shape unusable in one of the ways of BROKEN; nothing that could be kept is left."""
    if kind == "no_faces":
        return [replace(part, faces=()) for part in parts]
    if kind == "nan_coordinates":
        return [replace(part, vertices=part.vertices * (1, np.nan, 1)) for part in parts]
    if kind == "index_out_of_range":
        total = sum(len(part.vertices) for part in parts)
        return [replace(part, faces=tuple(block + total for block in part.faces)) for part in parts]
    return [replace(part, vertices=np.zeros_like(part.vertices)) for part in parts]


def obj_text(shape: DemoShape) -> str:
    """The shape as Wavefront OBJ: one group per part, six decimals."""
    with_material = "missing_material" in shape.defects
    lines = [f"# Isomill demo shape; defects: {', '.join(shape.defects) or 'none'}\n"]
    lines += ["mtllib model_normalized.mtl\n"] if with_material else []
    start = 1
    for part in shape.parts:
        lines.append(f"g {part.name}\n")
        lines.append("v %.6f %.6f %.6f\n" * len(part.vertices) % tuple(_without_minus_zero(part.vertices)))
        lines += [f"usemtl {part.name}_material\n"] if with_material else []
        for block in part.faces:
            row = "f" + " %d" * block.shape[1] + "\n"
            lines.append(row * len(block) % tuple((block + start).ravel().tolist()))
        start += len(part.vertices)
    return "".join(lines)


def _without_minus_zero(vertices: np.ndarray) -> list[float]:
    return (np.round(vertices, 6) + 0.0).ravel().tolist()
