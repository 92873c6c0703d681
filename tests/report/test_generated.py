"""Generated shapes in the report: a table and pictures of their own."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.generators import generator_metrics
from pipeline.jobs.make_report import weights_source
from pipeline.report.cells import MISSING
from pipeline.report.generated import Generated, accuracy_of_sets_alike, generated_table
from pipeline.report.page import PAGE
from tests import solids
from tests.report import study
from tests.report.test_page import HOSTILE, Dom


def comparison(coverage: float, mmd: float, one_nna: float, generated: int = 40, failed: int = 0) -> dict:
    counts = {"generated": generated, "references": 40, "failed": failed}
    return {"coverage": coverage, "mmd": mmd, "one_nna": one_nna, **counts}


GAN = Generated(
    "imnet-gan",
    {"chamfer": comparison(0.6, 0.0123, 0.56), "light_field": comparison(0.5, 3000.4, 0.7)},
    (solids.three_boxes(), "no surface at the level", solids.box((0.4, 0.8, 0.2))),
)
VAE = Generated("onet-unconditional", {"chamfer": comparison(0.5, 0.0101, 0.45, failed=3)})


def test_a_distance_that_is_unknown_is_a_gap():
    nothing = Generated("broken", {"chamfer": comparison(0.0, None, 1.0, failed=40)})
    (chamfer,) = generated_table([VAE, nothing]).blocks
    assert [row[2].text for row in chamfer.rows] == ["0.01010", MISSING]


def words_of(block) -> list[list[str]]:
    return [[cell.text for cell in row] for row in block.rows]


def best_of(block) -> list[list[str]]:
    return [[cell.text for cell in row if cell.best] for row in block.rows]


def test_one_row_per_distance_and_generator_with_its_counts():
    chamfer, light_field = generated_table([GAN, VAE]).blocks
    assert words_of(chamfer) == [
        ["imnet-gan", "0.600", "0.01230", "0.560", "0.494", "40", "40", "0"],
        ["onet-unconditional", "0.500", "0.01010", "0.450", "0.494", "40", "40", "3"],
    ]
    assert words_of(light_field) == [["imnet-gan", "0.500", "3000", "0.700", "0.494", "40", "40", "0"]]


def test_best_are_high_coverage_low_distance_and_an_accuracy_that_tells_nothing_apart():
    assert best_of(generated_table([GAN, VAE]).blocks[0]) == [["0.600"], ["0.01010", "0.450"]]
    copies = Generated("copies", {"chamfer": comparison(0.6, 0.5, 0.0)})
    assert best_of(generated_table([GAN, copies]).blocks[0]) == [["0.600", "0.01230", "0.560"], ["0.600"]]


def test_the_reference_of_1_nna_follows_the_sizes_of_the_sets():
    """200 generated shapes against 40: a perfect generator scores 0.72, so 0.72 beats 0.5 here."""
    assert accuracy_of_sets_alike(200, 40) == pytest.approx((200 * 199 + 40 * 39) / (240 * 239))
    assert accuracy_of_sets_alike(10_000, 10_000) == pytest.approx(0.5, abs=1e-4)
    perfect = Generated("perfect", {"chamfer": comparison(1, 0.1, 0.72, generated=200)})
    half = Generated("half", {"chamfer": comparison(1, 0.1, 0.5, generated=200)})
    assert best_of(generated_table([perfect, half]).blocks[0]) == [["1.000", "0.1000", "0.720"], ["1.000", "0.1000"]]


def test_expected_accuracy_is_what_sets_of_one_distribution_have():
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(300):
        points = rng.normal(size=(30, 5))
        d = np.linalg.norm(points[:, None] - points[None], axis=-1)
        scores.append(generator_metrics(d[:20, 20:], d[:20, :20], d[20:, 20:])["one_nna"])
    assert np.mean(scores) == pytest.approx(accuracy_of_sets_alike(20, 10), abs=0.015)


def test_a_generator_without_a_single_surface_has_a_gap_for_its_distance():
    failed = Generated("broken", {"chamfer": comparison(0.0, float("inf"), 1.0, failed=40)})
    assert words_of(generated_table([failed]).blocks[0])[0][:4] == ["broken", "0.000", "–", "1.000"]


def test_generated_shapes_have_a_section_and_stand_in_no_other_table():
    page = Dom(study.report(generators=(GAN, VAE))[PAGE])
    assert "generated" in {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    text = study.report(generators=(GAN, VAE))[PAGE].decode()
    before, _, rest = text.partition('<section id="generated">')
    own, _, after = rest.partition("</section>")
    assert "imnet-gan" in own
    assert "imnet-gan" not in before + after
    assert "With sets of equal size 0.5 is best" in own


def test_pictures_are_those_of_the_first_shapes_and_a_failed_one_says_why():
    folder = study.report(generators=(GAN,), gallery=())
    own = folder[PAGE].decode().partition('<section id="generated">')[2].partition("</section>")[0]
    assert own.count("<img") == 2
    assert "no surface at the level" in own
    assert sum(name.endswith(".png") for name in folder) == 2


def test_without_generators_there_is_no_such_section():
    assert b'id="generated"' not in study.report()[PAGE]


def test_hostile_names_of_generators_stay_text():
    hostile = Generated(HOSTILE["net"], GAN.comparisons, (HOSTILE["reason"],))
    plain = Generated("net", GAN.comparisons, ("reason",))
    pages = (Dom(study.report(generators=(g,), fetched={g.method: g.samples[0]})[PAGE]) for g in (hostile, plain))
    tags = [sorted(tag for tag, _ in page.tags) for page in pages]
    assert tags[0] == tags[1]


def test_fetched_weights_are_named_where_others_have_a_learning_curve():
    words = Dom(study.report(fetched={"onet-pretrained": "onet.pt, SHA-256 12ab"})[PAGE]).text()
    assert "onet-pretrained" in words
    assert "published weights, not trained here. onet.pt, SHA-256 12ab" in words
    alone = study.report(curves={}, fetched={"onet-pretrained": "onet.pt"})[PAGE].decode()
    assert alone.partition('<section id="curves">')[2].partition("</section>")[0].count("<img") == 0


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"path": "/data/onet.pt", "url": None, "sha256": None}, "onet.pt"),
        ({"path": None, "url": "https://x.org/a/onet.pt?key=1", "sha256": "ab" * 32}, f"onet.pt, SHA-256 {'ab' * 32}"),
    ],
)
def test_the_file_of_the_weights_is_named_without_its_place(weights, words):
    assert weights_source({"experiments": [{"name": "mine", "weights": weights}]}, "mine") == words
