"""Ids of split lists: understood where one shape can be meant, counted where none is, refused where none at all is."""

import unicodedata

import pytest

from pipeline.sources.catalogue import Found, entries_of
from pipeline.sources.errors import SplitError
from pipeline.sources.split_ids import match_ids
from pipeline.sources.splits import SplitSettings

SEATS = [("seat", "seat/aws_chair_a.obj"), ("seat", "seat/aws_chair_b.off")]


def splits(lists: dict, shapes: list = SEATS) -> dict:
    return match_ids(lists, shapes).splits


@pytest.mark.parametrize(
    "listed",
    [
        ("seat", "seat/aws_chair_a.obj"),
        ("", "seat/aws_chair_a.obj"),
        ("seat", "aws_chair_a.obj"),
        ("", "aws_chair_a.obj"),
        ("seat", "seat/aws_chair_a"),
        ("seat", "aws_chair_a"),
        ("", "aws_chair_a"),
        ("", "./seat/aws_chair_a.obj"),
    ],
)
def test_an_id_is_understood_with_and_without_suffix_and_category(listed):
    assert splits({listed: "val"}) == {SEATS[0]: "val"}


@pytest.mark.parametrize("listed", [("seat", "a"), ("seat", "a.obj"), ("", "seat/a.obj"), ("", "seat/a")])
def test_a_folder_that_lists_take_for_a_category_is_understood_where_there_is_one_category_for_all(listed):
    assert splits({listed: "test"}, [("all", "seat/a.obj")]) == {("all", "seat/a.obj"): "test"}


def test_ids_of_shapenet_may_carry_a_suffix_and_the_name_of_their_category():
    shapes = [("03001627", "1a6f"), ("02691156", "1a6f")]
    assert splits({("chair", "1a6f.obj"): "test"}, shapes) == {("03001627", "1a6f"): "test"}
    assert splits({("", "02691156/1a6f"): "val"}, shapes) == {("02691156", "1a6f"): "val"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_that_differ_by_unicode_normalisation_match(forms):
    here, there = (unicodedata.normalize(form, "Stühle/Bär.obj") for form in forms)
    category = unicodedata.normalize(forms[0], "Stühle")
    listed = (unicodedata.normalize(forms[1], "Stühle"), there)
    assert here != there
    assert splits({listed: "test"}, [(category, here)]) == {(category, here): "test"}


def test_what_may_mean_several_shapes_gives_none_of_them_a_split():
    shapes = [("all", "a.obj"), ("all", "a.off"), ("all", "b.obj")]
    matches = match_ids({("all", "a"): "test", ("all", "b"): "train"}, shapes)
    assert matches.splits == {("all", "b.obj"): "train"}
    assert matches.ambiguous == {("all", "a"): shapes[:2]}
    # The same names told apart by their suffix.
    assert splits({("all", "a.obj"): "test", ("all", "a.off"): "val"}, shapes) == dict(
        zip(shapes[:2], ("test", "val"), strict=True)
    )


def test_another_suffix_is_another_shape():
    matches = match_ids({("all", "a.off"): "test"}, [("all", "a.obj")])
    assert matches.splits == {} and matches.absent == [("all", "a.off")]


def test_an_id_without_category_holds_in_all_of_them_and_one_with_it_comes_first():
    shapes = [("chair", "x"), ("table", "x")]
    assert splits({("", "x"): "train"}, shapes) == dict.fromkeys(shapes, "train")
    assert splits({("", "x"): "train", ("table", "x"): "test"}, shapes) == {shapes[0]: "train", shapes[1]: "test"}


def test_two_spellings_of_a_shape_in_different_splits_are_refused():
    lists = {("seat", "seat/aws_chair_a.obj"): "train", ("seat", "aws_chair_a"): "test"}
    with pytest.raises(SplitError, match=r"as seat/seat/aws_chair_a.obj \(train\) and as seat/aws_chair_a \(test\)"):
        splits(lists)
    assert splits(dict.fromkeys(lists, "test")) == {SEATS[0]: "test"}


def test_ids_of_other_categories_are_not_missed():
    """Published lists hold all categories of a collection, a study a few of them."""
    matches = match_ids({("03001627", "a"): "train", ("02691156", "b"): "train"}, [("03001627", "a")])
    assert matches.absent == []


# --- as a source tells it


def listed(tmp_path, rows: list[str], shapes: list[tuple[str, str]]):
    path = tmp_path / "splits.csv"
    path.write_text("\n".join(["category,id,split", *rows]))
    said = []
    found = [Found(category, shape, {}, None) for category, shape in shapes]
    entries = entries_of(found, SplitSettings(kind="files", path=str(path)), said.append)
    return {entry.id: entry.split for entry in entries}, said


def test_lists_in_which_no_id_is_of_the_source_are_refused(tmp_path):
    rows = [f"seat,chairs/{k}.obj,train" for k in range(14)]
    with pytest.raises(SplitError) as refused:
        listed(tmp_path, rows, SEATS)
    assert str(refused.value) == (
        "none of 14 listed ids is in the source; an id looks like 'seat/aws_chair_a.obj' in category 'seat', but "
        f"{tmp_path}/splits.csv lists, for example, 'chairs/0.obj' in category 'seat'"
    )


def test_lists_of_other_categories_alone_are_refused_too(tmp_path):
    with pytest.raises(SplitError, match=r"none of 1 listed ids .* lists, for example, 'a.obj' in category 'legs'"):
        listed(tmp_path, ["legs,a.obj,train"], SEATS)


def test_partial_matches_are_counted(tmp_path):
    rows = ["seat,aws_chair_a,train", "seat,aws_chair_x.obj,test", "seat,aws_chair_y.obj,test"]
    splits, said = listed(tmp_path, rows, SEATS)
    assert splits == {"seat/aws_chair_a.obj": "train"}
    assert said == [
        "1 shapes are in no split list and are left out, for example seat/seat/aws_chair_b.off",
        "2 ids of the split lists are not in the source, for example seat/aws_chair_x.obj; 1 of its 2 shapes are "
        "listed, and an id looks like 'seat/aws_chair_a.obj' in category 'seat'",
    ]


def test_ids_that_fit_several_shapes_are_named(tmp_path):
    splits, said = listed(tmp_path, ["all,a,train", "all,b,test"], [("all", "a.obj"), ("all", "a.off"), ("all", "b")])
    assert splits == {"b": "test"}
    assert said[-1] == (
        "1 ids of the split lists fit several shapes and give none; 'all/a' fits 'all/a.obj' and 'all/a.off'"
    )
