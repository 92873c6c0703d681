"""Profiles: all of the design, complete, as the sheets have them, and found by name."""

from typing import get_args

import pytest

from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.profiles import PROFILES, ProfileName, profile_named
from pipeline.settings import module_head


def test_every_name_has_a_profile_whose_metrics_exist():
    assert set(get_args(ProfileName)) == set(PROFILES)
    for profile in PROFILES.values():
        assert set(profile.metrics) <= set(METRICS)
        assert set(profile.shown) <= set(profile.columns)
        assert set(profile.print_scale) <= set(profile.metrics)


def test_lengths_are_printed_in_tenths_of_the_longest_edge_and_shares_as_they_are():
    assert PROFILES["onet"].print_scale["chamfer_l1"] == PROFILES["convonet"].print_scale["chamfer_l1"] == 10
    assert not set(PROFILES["convonet"].print_scale) & {"iou", "normal_consistency", "f_0.01"}
    assert PROFILES["air-ifnet"].print_scale == {}


COUNTS = {
    "onet": (100_000, 100_000, "stored", 100_000, 1.1, "stored", "parity", "macro"),
    "convonet": (100_000, 100_000, "stored", 100_000, 1.1, "stored", "parity", "macro"),
    "ifnet": (100_000, 100_000, "fresh", 1_000_000, 1.0, "fresh", "waterproof", "micro"),
    "air-ifnet": (100_000, 100_000, "fresh", 1_000_000, 1.0, "fresh", "waterproof", "micro"),
    "air-human": (100_000, 100_000, "fresh", 1_000_000, 1.0, "fresh", "waterproof", "micro"),
    "air-onet": (100_000, 100_000, "stored", 100_000, 1.1, "stored", "waterproof", "micro"),
    "imnet": (4096, 4096, "stored", 64**3, 1.0, "lattice", "parity", "macro"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_sources_and_inside_tests_are_those_of_the_sheet(name):
    profile = PROFILES[name]
    surface, volume = profile.surface, profile.volume
    taken = (surface.predicted_samples, surface.reference_samples, surface.reference_source)
    assert (*taken, volume.points, volume.box, volume.source, volume.inside_test, profile.mean) == COUNTS[name]


def test_profiles_without_an_iou_have_none():
    for name, samples in {"deepsdf": 30_000, "neuralpull": 1_000_000, "nmf": 10_000}.items():
        assert PROFILES[name].volume is None and PROFILES[name].surface.predicted_samples == samples


def test_what_cannot_be_scaled_from_a_row_is_shown_as_printed():
    assert PROFILES["onet"].shown == PROFILES["onet"].metrics
    assert PROFILES["deepsdf"].shown[:3] == ("printed_cd", "printed_emd", "printed_mesh_accuracy")
    assert {"printed_normal_consistency", "printed_f_0.002"} <= set(PROFILES["neuralpull"].shown)
    assert PROFILES["deepsdf"].columns["printed_cd"].penalty == 6000
    assert PROFILES["neuralpull"].columns["printed_normal_consistency"].higher_is_better


def test_a_misspelt_profile_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'convnet'.*did you mean 'convonet'"):
        profile_named("convnet")
    with pytest.raises(ValueError, match="there are onet, convonet, ifnet, air-ifnet"):
        profile_named("zzz")


def test_names_are_read_without_loading_a_library():
    assert not hasattr(module_head("pipeline.evaluation.profiles"), "np")
