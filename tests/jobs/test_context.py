"""What a job is started with."""

from __future__ import annotations

import pytest

from pipeline.jobs.context import open_context


def test_a_stage_that_no_experiment_needs_is_told_in_words(tmp_path):
    with pytest.raises(SystemExit, match="no experiment of this study needs this stage"):
        open_context(tmp_path / "settings" / "abc.json")
