"""Facts about the demo's shapes, read back from the OBJ text that later stages read."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.seeds import rng_for
from pipeline.settings import module_head
from pipeline.sources.demo import (
    BROKEN,
    DEFECTS,
    SYNSETS,
    DemoSettings,
    DemoShape,
    area_vectors,
    make_archive,
    make_shape,
    model_id,
    obj_text,
    placed,
    taxonomy,
    triangles,
)
from pipeline.sources.demo_shapes import MAKERS, Part

SETTINGS = DemoSettings()
CATEGORIES = list(SYNSETS)
SMALL = DemoSettings(shapes=4, broken=1)


@dataclass
class Obj:
    """An OBJ file read by the simplest rules: per group its polygons with indices from 0."""

    vertices: np.ndarray
    groups: list[tuple[str, list[tuple[int, ...]]]]
    words: set[str]

    @property
    def polygons(self) -> list[tuple[int, ...]]:
        return [polygon for _, polygons in self.groups for polygon in polygons]


def read_obj(text: str) -> Obj:
    vertices, groups, words = [], [], set()
    for line in text.splitlines():
        word, *rest = line.split()
        words.add(word)
        if word == "v":
            vertices.append([float(value) for value in rest])
        elif word == "g":
            groups.append((rest[0], []))
        elif word == "f":
            groups[-1][1].append(tuple(int(index) - 1 for index in rest))
    return Obj(np.array(vertices), groups, words)


def edges(obj: Obj, polygons: list[tuple[int, ...]]) -> Counter:
    """How often each directed edge is walked; corners at one position count as one."""
    places = [tuple(row) for row in obj.vertices.tolist()]
    return Counter(
        (places[a], places[b]) for polygon in polygons for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True)
    )


def boundary_edges(obj: Obj, polygons: list[tuple[int, ...]]) -> int:
    walked = edges(obj, polygons)
    return sum(walked[a, b] + walked[b, a] == 1 for a, b in walked)


def signed_volume(obj: Obj, polygons: list[tuple[int, ...]]) -> float:
    fans = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return float(np.linalg.det(obj.vertices[np.array(fans)]).sum() / 6)


def is_sheet(obj: Obj, polygons: list[tuple[int, ...]]) -> bool:
    """One layer facing one way: the area vectors hardly cancel."""
    vectors = np.concatenate([area_vectors(obj.vertices[[polygon]]) for polygon in polygons])
    return np.linalg.norm(vectors.sum(axis=0)) > 0.9 * np.linalg.norm(vectors, axis=1).sum()


def undamaged(category: str, index: int) -> list[Part]:
    parts = MAKERS[category](rng_for(SETTINGS.seed, "demo", f"{category}/{index}"))
    return placed(parts, rng_for(SETTINGS.seed, "demo_place", f"{category}/{index}"))


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as handle:
        return {info.filename: handle.read(info) for info in handle.infolist()}


@pytest.fixture(scope="module")
def shapes() -> list[tuple[str, DemoShape, Obj]]:
    made = [(c, make_shape(c, k, SETTINGS)) for c in CATEGORIES for k in range(SETTINGS.shapes)]
    return [(category, shape, read_obj(obj_text(shape))) for category, shape in made]


# Settings


def test_the_head_of_the_module_gives_the_settings_without_loading_numpy():
    head = module_head("pipeline.sources.demo")
    assert head.DemoSettings().model_dump() == SETTINGS.model_dump()
    assert not hasattr(head, "np")


@pytest.mark.parametrize("categories", [[], ["chair", "chair"], ["sofa"]])
def test_categories_are_known_distinct_and_at_least_one(categories):
    with pytest.raises(ValidationError, match="categories"):
        DemoSettings(categories=categories)


def test_the_default_set_has_three_categories_and_at_least_sixty_usable_shapes():
    assert len(SETTINGS.categories) == 3
    assert len(SETTINGS.categories) * SETTINGS.shapes >= 60


def test_taxonomy_counts_usable_and_broken_shapes_of_the_chosen_categories():
    rows = taxonomy(DemoSettings(categories=["table"], shapes=5, broken=3))
    assert rows == [{"synsetId": "04379243", "name": "table", "children": [], "numInstances": 8}]


# Archives


@pytest.mark.parametrize("category", CATEGORIES)
def test_archive_bytes_are_the_same_in_another_process(category):
    code = (
        "import hashlib; from pipeline.sources.demo import *; "
        f"print(hashlib.sha256(make_archive({category!r}, DemoSettings(shapes=4, broken=1))).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(make_archive(category, SMALL)).hexdigest()


@pytest.mark.parametrize("category", CATEGORIES)
def test_more_shapes_leave_the_others_byte_identical(category):
    few = members(make_archive(category, SMALL))
    many = members(make_archive(category, DemoSettings(shapes=14, broken=3)))
    assert (len(few), len(many)) == (5, 17)
    assert all(many[name] == content for name, content in few.items())


def test_the_choice_of_categories_changes_no_archive():
    alone = DemoSettings(shapes=4, broken=1, categories=["table"])
    assert make_archive("table", alone) == make_archive("table", SMALL)


def test_another_seed_gives_other_meshes_under_the_same_names():
    first, second = (members(make_archive("chair", DemoSettings(shapes=4, broken=1, seed=seed))) for seed in (0, 1))
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first if model_id("chair", -1) not in name)


@pytest.mark.parametrize("category", CATEGORIES)
def test_members_are_sorted_regular_files_in_shapenet_v2_layout(category):
    with zipfile.ZipFile(io.BytesIO(make_archive(category, SMALL))) as handle:
        infos = handle.infolist()
    names = [info.filename for info in infos]
    assert names == sorted(set(names))
    layout = re.compile(rf"{SYNSETS[category]}/[0-9a-f]{{32}}/models/model_normalized\.obj")
    assert all(layout.fullmatch(name) for name in names)
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_model_ids_are_distinct():
    ids = {model_id(category, index) for category in CATEGORIES for index in range(-10, 1000)}
    assert len(ids) == 3 * 1010


# Shapes


@pytest.mark.parametrize("category", CATEGORIES)
def test_undamaged_parts_are_closed_oriented_outward_and_not_thin(category):
    for index in range(SETTINGS.shapes):
        shape = DemoShape(model_id(category, index), tuple(undamaged(category, index)), ())
        obj = read_obj(obj_text(shape))
        longest = np.ptp(obj.vertices, axis=0).max()
        for name, polygons in obj.groups:
            walked = edges(obj, polygons)
            assert all(walked[b, a] == count == 1 for (a, b), count in walked.items()), name
            assert signed_volume(obj, polygons) > 0, name
            used = obj.vertices[sorted({corner for polygon in polygons for corner in polygon})]
            assert np.ptp(used, axis=0).min() > 0.03 * longest, name


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_part_runs_into_another_one(category):
    for index in range(SETTINGS.shapes):
        boxes = [np.stack([p.vertices.min(axis=0), p.vertices.max(axis=0)]) for p in undamaged(category, index)]
        for i, (low, high) in enumerate(boxes):
            overlaps = [np.minimum(high, b) - np.maximum(low, a) for j, (a, b) in enumerate(boxes) if j != i]
            assert max(overlap.min() for overlap in overlaps) > 1e-3


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_has_real_variety(category):
    kinds = {tuple(part.name for part in undamaged(category, index)) for index in range(SETTINGS.shapes)}
    assert len(kinds) >= 6


def test_boxes_have_a_diagonal_of_about_one_and_are_not_centred(shapes):
    for _, shape, obj in shapes:
        used = obj.vertices[sorted({corner for polygon in obj.polygons for corner in polygon})]
        low, high = used.min(axis=0), used.max(axis=0)
        assert 0.9 < np.linalg.norm(high - low) < 1.06, shape.model_id
        assert 1e-4 < np.linalg.norm(low + high) / 2 < 0.07, shape.model_id


def test_y_is_up_and_minus_z_is_the_front():
    middle = {}
    for category in CATEGORIES:
        for index in range(SETTINGS.shapes):
            parts = undamaged(category, index)
            middle = {part.name: part.vertices.mean(axis=0) for part in parts}
            if category == "airplane":
                assert middle["fin"][2] > middle["fuselage"][2] + 0.1  # the nose is at the other end
                assert middle["fin"][1] > middle["fuselage"][1]
            else:
                board = middle["seat" if category == "chair" else "top"]
                assert all(board[1] > middle[name][1] for name in ("leg", "column", "side") if name in middle)
                assert all(middle[name][2] > board[2] + 0.05 for name in ("back", "rail", "slat") if name in middle)


def test_airplanes_have_straight_and_swept_high_and_low_wings_and_both_kinds_of_tail():
    sweeps, mounts, tails = [], [], []
    for index in range(SETTINGS.shapes):
        parts = {part.name: part.vertices for part in MAKERS["airplane"](rng_for(0, "demo", f"airplane/{index}"))}
        root, tip = parts["wing"][:9].mean(axis=0), parts["wing"][9:].mean(axis=0)
        sweeps.append(abs(tip[2] - root[2]) / abs(tip[0] - root[0]))
        mounts.append(np.sign(np.round(root[1], 3)))
        tails.append(parts["tailplane"][:, 1].min() > 0.1)
    assert min(sweeps) < 0.13 < 0.22 < max(sweeps)
    assert {-1, 1} <= set(mounts)
    assert {True, False} == set(tails)


def test_the_mesh_of_a_shape_has_the_faces_of_its_obj(shapes):
    for _, shape, obj in shapes[::10]:
        fans = [(p[0], p[i], p[i + 1]) for p in obj.polygons for i in range(1, len(p) - 1)]
        written = np.sort(obj.vertices[np.array(fans)].reshape(-1, 9), axis=0)
        np.testing.assert_allclose(np.sort(shape.mesh.triangles.reshape(-1, 9), axis=0), written, atol=1e-6)


def test_the_mean_shape_overlaps_the_shapes_by_more_than_a_tenth():
    solids = np.array([solid(undamaged(category, index)) for category in CATEGORIES for index in range(20)])
    test = np.arange(len(solids)) % 4 == 3
    mean = solids[~test].mean(axis=0)

    def overlap(level: float, rows: np.ndarray) -> float:
        guess = mean >= level
        return float(np.mean((guess & rows).sum(axis=1) / (guess | rows).sum(axis=1)))

    best = max(np.linspace(0.05, 0.6, 23), key=lambda level: overlap(level, solids[~test]))
    assert overlap(best, solids[test]) > 0.13


def solid(parts: list[Part], resolution: int = 32) -> np.ndarray:
    """Cells of the canonical cube whose centres lie in any part, (resolution³,) bool."""
    import open3d as o3d

    corners = np.concatenate([part.vertices for part in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    queries = (cells * (high - low).max() + (low + high) / 2).astype(np.float32)
    inside = np.zeros(len(queries), bool)
    for part in parts:
        near = np.flatnonzero(
            ((queries >= part.vertices.min(axis=0)) & (queries <= part.vertices.max(axis=0))).all(axis=1)
        )
        scene = o3d.t.geometry.RaycastingScene(1)
        scene.add_triangles(part.vertices.astype(np.float32), triangles(part)[0].astype(np.uint32))
        if len(near):
            inside[near] |= scene.compute_occupancy(queries[near], nthreads=1, nsamples=3).numpy() > 0.5
    return inside


# Defects


def test_every_defect_occurs_in_every_category_and_some_shapes_have_none(shapes):
    for category in CATEGORIES:
        found = [shape.defects for name, shape, _ in shapes if name == category]
        assert {defect for defects in found for defect in defects} == set(DEFECTS)
        assert () in found


def test_edges_with_one_face_occur_with_missing_caps_and_sheets_only(shapes):
    for _, shape, obj in shapes:
        if {"duplicate_faces"} & set(shape.defects):
            continue  # a doubled face closes nothing, but it changes the count
        open_groups = {name for name, polygons in obj.groups if polygons and boundary_edges(obj, polygons)}
        assert bool(open_groups) == bool({"open_surface", "sheet"} & set(shape.defects)), shape.defects
        if "open_surface" in shape.defects:
            assert open_groups & {"leg", "column", "side", "engine", "tailplane"}


def test_sheets_are_parts_with_one_layer_of_faces(shapes):
    for _, shape, obj in shapes:
        if not {"flipped_faces", "duplicate_faces"} & set(shape.defects):
            sheets = {name for name, polygons in obj.groups if polygons and is_sheet(obj, polygons)}
            assert bool(sheets) == ("sheet" in shape.defects), shape.defects
            assert sheets <= {"seat", "back", "shelf", "side", "top", "wing"}


def test_inner_walls_lie_inside_the_part_they_copy(shapes):
    for category, shape, obj in shapes:
        copies = [(name, polygons) for name, polygons in obj.groups if name.endswith("_inside")]
        assert bool(copies) == ("inner_walls" in shape.defects)
        for name, polygons in copies:
            index = next(k for k in range(SETTINGS.shapes) if model_id(category, k) == shape.model_id)
            points = obj.vertices[sorted({corner for polygon in polygons for corner in polygon})]
            outer = [part for part in undamaged(category, index) if f"{part.name}_inside" == name]
            assert any(inside_convex(points, part) for part in outer)


def inside_convex(points: np.ndarray, part: Part) -> bool:
    corners = part.vertices[triangles(part)[0]]
    normals = area_vectors(corners)
    return bool((np.einsum("pfk,fk->pf", points[:, None] - corners[None, :, 0], normals) < 0).all())


def test_only_duplicate_faces_repeat_a_face_and_half_of_them_face_inward(shapes):
    for _, shape, obj in shapes:
        times = Counter(frozenset(tuple(row) for row in obj.vertices[list(p)].tolist()) for p in obj.polygons)
        repeated = sum(times.values()) - len(times)
        assert (repeated > 0) == ("duplicate_faces" in shape.defects)
        if shape.defects == ("duplicate_faces",):
            assert 0.1 < repeated / len(times) < 0.35
            doubled = [polygons for _, polygons in obj.groups if max(edges(obj, polygons).values()) > 1]
            opposed = [polygons for _, polygons in obj.groups if folded_faces(obj, polygons)]
            assert doubled and opposed


def folded_faces(obj: Obj, polygons: list[tuple[int, ...]]) -> int:
    """Faces of which the mirror image is there too."""
    turns = {tuple(np.roll(p, -int(np.argmin(p)))) for p in polygons}
    return sum(tuple(np.roll(p[::-1], -int(np.argmin(p[::-1])))) in turns for p in turns)


def test_neighbours_disagree_on_the_outside_only_with_flipped_or_duplicate_faces(shapes):
    for _, shape, obj in shapes:
        if "duplicate_faces" not in shape.defects:
            disagree = sum(count > 1 for _, p in obj.groups for count in edges(obj, p).values())
            assert (disagree > 0) == ("flipped_faces" in shape.defects)


def test_faces_with_more_than_three_corners_occur_with_polygons_only(shapes):
    for _, shape, obj in shapes:
        corners = {len(polygon) for polygon in obj.polygons}
        assert (corners == {3}) == ("polygons" not in shape.defects)
    assert any(len(polygon) > 4 for _, _, obj in shapes for polygon in obj.polygons)


def test_faces_share_no_vertex_when_unwelded(shapes):
    for _, shape, obj in shapes:
        uses = Counter(corner for polygon in obj.polygons for corner in polygon)
        assert (max(uses.values()) == 1) == ("unwelded" in shape.defects)


def test_only_loose_vertices_are_unreferenced_and_one_is_far_outside(shapes):
    for _, shape, obj in shapes:
        used = sorted({corner for polygon in obj.polygons for corner in polygon})
        assert (len(used) < len(obj.vertices)) == ("loose_vertices" in shape.defects)
        reach = np.abs(obj.vertices).max() / np.abs(obj.vertices[used]).max()
        assert (reach > 2) == ("loose_vertices" in shape.defects)


def test_material_lines_name_a_file_that_the_archive_lacks(shapes):
    for _, shape, obj in shapes:
        assert ({"mtllib", "usemtl"} <= obj.words) == ("missing_material" in shape.defects)
    assert not any(name.endswith(".mtl") for name in members(make_archive("chair", SETTINGS)))


# Broken shapes


def test_the_default_set_has_every_kind_of_broken_shape():
    kinds = [make_shape(c, -1 - k, SETTINGS).defects for c in CATEGORIES for k in range(SETTINGS.broken)]
    assert {kind for (kind,) in kinds} == set(BROKEN)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("index", [-1, -2, -3, -4])
def test_a_broken_shape_has_no_face_with_an_area(category, index):
    shape = make_shape(category, index, SETTINGS)
    obj = read_obj(obj_text(shape))
    valid = [p for p in obj.polygons if max(p) < len(obj.vertices)]
    areas = [float(np.linalg.norm(area_vectors(obj.vertices[[polygon]]))) for polygon in valid]
    assert not any(area > 0 for area in areas)
    assert (not obj.polygons) == (shape.defects == ("no_faces",))
    assert bool(obj.polygons and not valid) == (shape.defects == ("index_out_of_range",))
    assert bool(np.isnan(obj.vertices).any()) == (shape.defects == ("nan_coordinates",))
    assert (np.ptp(obj.vertices, axis=0).max() == 0) == (shape.defects == ("degenerate_faces",))
