"""Settings of one category touch the keys of its shapes and no others."""

import dataclasses

from pipeline.jobs.work import Work, compute
from tests import solids
from tests.jobs.test_shards import WORK

SOLID = dataclasses.replace(WORK, by_category={"02958343": {"interior": "solid"}})


def test_a_categorys_own_settings_change_the_keys_of_its_shapes_only():
    digests = {"raw": "0" * 40}
    assert SOLID.key("03001627/chair", digests) == WORK.key("03001627/chair", digests)
    assert SOLID.key("02958343/car", digests) != WORK.key("02958343/car", digests)
    hollow = dataclasses.replace(WORK, by_category={"02958343": {"interior": "hollow"}})
    assert SOLID.key("02958343/car", digests) != hollow.key("02958343/car", digests)
    assert dataclasses.replace(WORK, by_category={"other": {"interior": "solid"}}).key("02958343/car", digests) == (
        WORK.key("02958343/car", digests)
    )


def test_a_stage_sees_the_settings_of_the_shapes_category():
    work = Work(
        instance="make_watertight",
        fingerprint="f" * 40,
        settings={"chain": ["keep", "shell"], "resolution": 32},
        random=False,
        seed=0,
        libraries={},
        code="",
        file="settings.json",
        module="pipeline.meshes.watertight",
        function="make_watertight",
        settings_class="WatertightSettings",
        format="mesh",
        by_category={"tub": {"interior": "solid"}},
    )
    box = solids.box((1.0, 0.7, 0.5))
    open_box = solids.Mesh(box.vertices, box.faces[[k for k in range(12) if k not in (0, 6)]])
    volumes = {shape: compute(work, shape, {"raw": open_box}).figures["volume"] for shape in ("tub/a", "box/a")}
    assert volumes["tub/a"] > 0.33
    assert volumes["box/a"] < 0.06
