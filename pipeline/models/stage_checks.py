"""What models ask of the data stages beyond their being there, said before anything runs.

A model's head may define `check_stages(settings, inference, stages) -> str | None`: what its ModelSettings and
InferenceSettings ask that the settings of the data stages (`stages` of the configuration) do not give, or None. It is
not asked about a prepared set, whose files hold what they hold.
"""

from __future__ import annotations

from pipeline.settings import Settings


def missing_points(points: int, stages: Settings, key: str = "model.observation.points") -> str | None:
    """What is wrong with observing so many different surface points of a shape, or None. key: where it is set."""
    count = stages.sample_surface.count
    if points <= count:
        return None
    return (
        f"{key} is {points}, but stages.sample_surface.count is {count}, so points would be seen twice; observe fewer "
        f"or sample more"
    )


def missing_view(view: int, stages: Settings, key: str) -> str | None:
    """What is wrong with the number of a view, from 0, or None. key: where it is set."""
    views = stages.render_views.views
    if view < views:
        return None
    return (
        f"{key} is {view}, but stages.render_views.views is {views}, which are numbered 0 to {views - 1}; choose one "
        f"of these or render more"
    )
