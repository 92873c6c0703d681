from __future__ import annotations

import pytest

from tests.workflow.runner import Workflow


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workflow:
    """The fault profile, run undisturbed to its end once; tests copy it."""
    workflow = Workflow.new(tmp_path_factory.mktemp("finished") / "study")
    workflow.run()
    return workflow


@pytest.fixture
def study(finished, tmp_path) -> Workflow:
    """A copy of the finished study to edit."""
    return finished.copy(tmp_path / "study")
