"""JSON has no NaN and no infinity: neither is ever written, and where a number may be one, null stands for it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import encoding, files
from pipeline.arrays import Mesh, Product
from pipeline.evaluation.generators import generator_metrics
from pipeline.settings import as_json, canonical_json
from tests import solids

PACKAGE = Path(files.__file__).parent
UNKNOWN = [float("nan"), float("inf"), -float("inf"), np.float64("inf")]


@pytest.mark.parametrize("number", UNKNOWN)
def test_what_is_no_number_becomes_null_wherever_it_stands(number, tmp_path):
    value = {"a": [1.5, (number, "inf")], "b": {"c": number, "d": None, "e": True}, "f": 3}
    assert as_json(value) == {"a": [1.5, [None, "inf"]], "b": {"c": None, "d": None, "e": True}, "f": 3}
    files.write_json(tmp_path / "value.json", as_json(value))
    assert json.loads((tmp_path / "value.json").read_text(), parse_constant=pytest.fail)["f"] == 3


@pytest.mark.parametrize("number", UNKNOWN)
def test_it_is_never_written_as_it_is(number, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "value.json", {"a": [number]})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": number})
    for value, kind in ((solids.box(), "mesh"), (solids.box(), "off"), ({"x": np.zeros(1)}, "arrays"), ({}, "json")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            encoding.encode(Product(value, {"error": number}), kind)


def calls_of_dumps() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                found.append((f"{path.name}:{node.lineno}", node))
    return found


def test_every_place_that_writes_json_refuses_it():
    calls = calls_of_dumps()
    assert len(calls) >= 4
    lax = [place for place, call in calls if "allow_nan=False" not in [ast.unparse(k) for k in call.keywords]]
    assert not lax


def test_a_generator_of_which_nothing_came_out_has_no_distance_in_json():
    failed = np.full((2, 3), np.inf)
    values = generator_metrics(failed, np.full((2, 2), np.inf), np.ones((3, 3)))
    assert values["mmd"] == np.inf and as_json(values)["mmd"] is None
    assert json.loads(canonical_json(as_json(values)))["failed"] == 2


def test_figures_of_a_reconstruction_are_null_where_they_are_no_numbers():
    from pipeline.reconstruction.shapes import _checked, _with_figures

    ball = solids.icosphere(0.4, subdivisions=1)
    told = {"fit_error": float("nan"), "code_norm": float("inf"), "sign": 1}
    for product in (_checked(ball, told), _with_figures(Product(Mesh(ball.vertices, ball.faces), {"faces": 80}), told)):
        assert product.figures == {"faces": 80, "fit_error": None, "code_norm": None, "sign": 1}
        assert encoding.encode(product, "off")
