"""Profiles: complete, sharing one protocol, and found by name."""

from dataclasses import replace
from typing import get_args

import pytest

from pipeline.evaluation import profiles
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.profiles import PROFILES, ProfileName, profile_named, shared_protocol


def test_every_name_has_a_profile_whose_metrics_exist():
    assert set(get_args(ProfileName)) == set(PROFILES)
    for profile in PROFILES.values():
        assert set(profile.metrics) <= set(METRICS)
        assert set(profile.print_scale) <= set(profile.metrics)


def test_lengths_are_printed_in_tenths_of_the_longest_edge_and_shares_as_they_are():
    assert PROFILES["onet"].print_scale["chamfer_l1"] == PROFILES["convonet"].print_scale["chamfer_l1"] == 10
    assert not set(PROFILES["convonet"].print_scale) & {"iou", "normal_consistency", "f_0.01"}


def test_a_misspelt_profile_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'convnet'.*did you mean 'convonet'"):
        profile_named("convnet")


def test_profiles_share_a_protocol_or_are_refused_together(monkeypatch):
    assert shared_protocol(["onet", "convonet"]) == PROFILES["onet"].protocol
    other = replace(PROFILES["onet"], protocol=replace(PROFILES["onet"].protocol, iou_points=1_000_000))
    monkeypatch.setitem(profiles.PROFILES, "other", other)
    assert shared_protocol(["other"]).iou_points == 1_000_000
    with pytest.raises(ValueError, match="onet, other take their values in different ways"):
        shared_protocol(["onet", "other"])
