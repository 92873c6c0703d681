"""Published numbers: with source, never from memory, and in the columns of our tables."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.evaluation.profiles import PROFILES
from pipeline.report import cells
from pipeline.report.page import PAGE
from pipeline.report.published import CONDITIONS, FILE, published_for, published_table, read_published
from tests.report import study

SHEET = Path(__file__).parents[3] / "shared" / "reference" / "published.csv"


def test_every_number_has_a_source_and_was_checked():
    table = read_published(study.RESOURCES)
    assert len(table) > 1000 and set(table["status"]) == {"confirmed", "repeated_elsewhere"}
    assert (table["source"] != "").all() and table["value"].notna().all()


def test_a_number_from_memory_is_refused(tmp_path):
    table = read_published(study.RESOURCES).head(3)
    table.assign(status=["confirmed", "from_memory", "confirmed"]).to_csv(tmp_path / FILE, index=False)
    with pytest.raises(ValueError, match="1 rows have no source or an unknown status, first row 3"):
        read_published(tmp_path)


def test_numbers_stand_in_columns_that_their_profile_has():
    table = read_published(study.RESOURCES)
    for name, rows in table[table["profile"] != ""].groupby("profile"):
        assert set(rows["key"]) <= set(PROFILES[name].columns), name
        assert set(rows.query("statistic == 'mean'")["key"]) <= {*PROFILES[name].shown, *PROFILES[name].metrics}


def test_the_papers_own_rows_are_found():
    found = published_for(read_published(study.RESOURCES), "onet")
    paper = {c["variant"] + c["source"]: v for c, v in found if c["method"] == "ONet"}
    image = next(values for label, values in paper.items() if label.endswith("ONet paper, Table 1"))
    assert image == {"iou": 0.571, "chamfer_l1": 0.215, "normal_consistency": 0.834}
    assert all(set(c) == set(CONDITIONS) for c, _ in found)


def test_the_table_has_our_columns_then_conditions_and_source():
    metrics = cells.metrics_of(["iou", "chamfer_l1"], PROFILES["onet"].columns, PROFILES["onet"].print_scale)
    table = published_table(read_published(study.RESOURCES), "onet", metrics)
    assert [c.label for c in table.columns] == ["Published", "IoU ↑", "Chamfer-L1 ×10 ↓", "Conditions", "Source"]
    row = next(row for row in table.rows if row[-1].text.startswith("ONet paper, Table 1"))
    assert row[1].text == "0.571" and row[2].text == "0.215" and "single image" in row[-2].text
    assert published_table(read_published(study.RESOURCES), "ifnet", metrics) is None


def test_the_page_shows_them_beside_ours():
    page = study.report(published=read_published(study.RESOURCES))[PAGE].decode()
    assert "Published numbers, each under its own conditions" in page and "ONet paper, Table 1" in page
    assert "Published numbers" not in study.report()[PAGE].decode()


def test_the_file_is_the_sheet_without_what_is_from_memory():
    if not SHEET.is_file():
        pytest.skip("the sheets are not beside this checkout")
    sheet = pd.read_csv(SHEET, dtype=str, keep_default_na=False)
    sheet = sheet[sheet["status"] != "from_memory"].reset_index(drop=True)
    ours = pd.read_csv(study.RESOURCES / FILE, dtype=str, keep_default_na=False)[sheet.columns]
    pd.testing.assert_frame_equal(ours, sheet)
