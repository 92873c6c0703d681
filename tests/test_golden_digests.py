"""The bytes each stage makes of a known shape. A digest changes only together with a line in CHANGELOG.md.

They hold for the pinned libraries on x86-64; elsewhere the last bits of sines and square roots may differ.
"""

from __future__ import annotations

import dataclasses
import platform

import numpy as np
import pytest

from pipeline import encoding, files, stages
from pipeline.arrays import Mesh
from pipeline.evaluation.shape import EvaluationSettings, evaluate_mesh
from pipeline.jobs.work import Work, compute
from tests import solids

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the golden digests were taken on x86-64")

SETTINGS = {
    "render_views": {"views": 2, "resolution": 32},
    "make_watertight": {"resolution": 48},
    "sample_surface": {"count": 500},
    "sample_boundary/0.1": {"sigma": 0.1, "count": 500},
    "sample_volume": {"count": 500},
    "voxelize/16": {"resolution": 16},
}
GOLDEN = {
    "extract_meshes": "a27db0f28eec0636765835f8eb2eee5732366a33",
    "make_watertight": "d65239dd6294a4446cb4aaf160d0c01752e10335",
    "scale_to_off": "a15a180a6105da66eddeb9521e4e822499e958fe",
    "sample_surface": "680f0551a532215433326e35409ac67b03c4e8ee",
    "sample_boundary/0.1": "4c900f48a91479c8181901d5f9a83a68d2b0008d",
    "sample_volume": "694484b40f5ed32f45d3539c29e7d6daf3041b8e",
    "compute_sdf": "8f25bf423bac2f73fc4cf0ba641f4d99f558f90d",
    "voxelize/16": "1a66815c65962eeabe2b20fb4e9d094323be2d5b",
    "render_views": "2055ff41b7e89d2fab6be89d6e5154626e03bc49",
}

CHAMFER_L1 = 0.031857097620637466


def work(instance: str) -> Work:
    stage = stages.stage_of(instance)
    return Work(
        instance=instance,
        fingerprint="",
        settings=SETTINGS.get(instance, {}),
        random=stage.random,
        seed=0,
        libraries={},
        code="",
        file="",
        module=stage.module,
        function=stage.function,
        settings_class=stage.settings,
        format=stage.format,
    )


def open_box_with_a_lid() -> bytes:
    """A raw OBJ without symmetry, off centre and not watertight: two boxes, one of them without its last two faces."""
    one, two = solids.box((0.7, 0.3, 0.5), (1.0, 0.2, -0.3)), solids.box((0.2, 0.9, 0.1), (1.2, 0.5, -0.1))
    faces = np.concatenate([one.faces[:-2], two.faces + len(one.vertices)])
    mesh = Mesh(np.concatenate([one.vertices, two.vertices]), faces)
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
    return "\n".join(lines + [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]).encode()


@pytest.fixture(scope="module")
def products() -> dict[str, bytes]:
    """Every stage of the data's path, each from the stored bytes of the ones before it."""
    made: dict[str, bytes] = {}

    def value(instance: str):
        return encoding.decode(made[instance], stages.stage_of(instance).format).value

    for instance in GOLDEN:
        inputs = {
            "extract_meshes": lambda: {"content": open_box_with_a_lid(), "name": "model.obj", "companions": {}},
            "make_watertight": lambda: {"raw": value("extract_meshes")},
            "scale_to_off": lambda: {"watertight": value("make_watertight"), "raw": value("extract_meshes")},
            "compute_sdf": lambda: {
                "mesh": value("scale_to_off"),
                "sets:volume": value("sample_volume"),
                "sets:boundary-0.1": value("sample_boundary/0.1"),
            },
        }.get(instance, lambda: {"mesh": value("scale_to_off")})()
        product = compute(work(instance), "category/shape", inputs)
        made[instance] = encoding.encode(product, stages.stage_of(instance).format)
    return made


@pytest.mark.parametrize("instance", GOLDEN)
def test_a_stage_makes_the_same_bytes_as_ever(products, instance):
    assert files.digest_of(products[instance]) == GOLDEN[instance]


@pytest.mark.parametrize("instance", ["sample_surface", "sample_boundary/0.1", "sample_volume"])
def test_another_seed_makes_other_bytes(products, instance):
    mesh = encoding.decode(products["scale_to_off"], "off").value
    product = compute(dataclasses.replace(work(instance), seed=1), "category/shape", {"mesh": mesh})
    assert encoding.encode(product, "arrays") != products[instance]


def test_the_evaluation_of_the_stored_samples_is_the_same_as_ever(products):
    mesh = encoding.decode(products["scale_to_off"], "off").value
    surface, volume = (encoding.decode(products[s], "arrays").value for s in ("sample_surface", "sample_volume"))
    settings = EvaluationSettings(samples=500)
    row = evaluate_mesh(mesh, surface, settings, np.random.default_rng(0), volume, mesh).value["profiles"]["onet"]
    assert row["iou"] == 1.0
    assert row["chamfer_l1"] == pytest.approx(CHAMFER_L1, abs=1e-9)
