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
    "make_watertight": {"resolution": 48},
    "sample_surface": {"count": 500},
    "sample_boundary/0.1": {"sigma": 0.1, "count": 500},
    "sample_volume": {"count": 500},
    "voxelize/16": {"resolution": 16},
}
GOLDEN = {
    "extract_meshes": "a27db0f28eec0636765835f8eb2eee5732366a33",
    "make_watertight": "a57dcd572bc8d377fabaa766d59bdc4027bf950b",
    "scale_to_off": "8ae93329288336dc911bbb06fdc20bdc2d84f30c",
    "sample_surface": "1d78e72c8963539a98128762c9abe779fd1c1882",
    "sample_boundary/0.1": "e6dbaa5455d1c84205f06fd6cf1f07b49270a8bd",
    "sample_volume": "8c4d9aa53dea9e88047301ab943577478acb40fb",
    "compute_sdf": "971166a498b1054071bcf29a2691bb7479b17063",
    "voxelize/16": "44a363552c5ea20ae47d8a21aa99e6316486604a",
}

CHAMFER_L1 = 0.03286076743736667


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
    row = evaluate_mesh(mesh, surface, volume, settings, np.random.default_rng(0), mesh).value["profiles"]["onet"]
    assert row["iou"] == 1.0
    assert row["chamfer_l1"] == pytest.approx(CHAMFER_L1, abs=1e-9)
