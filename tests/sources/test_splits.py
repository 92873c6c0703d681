"""Splits: stable hashes, the published forms of lists, and contradictions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.sources.errors import SplitError
from pipeline.sources.splits import SplitSettings, assign_split, read_split_lists

HASH = SplitSettings()
GOLDEN = ["train"] * 3 + ["test"] + ["train"] * 8 + ["test"] + ["train"] * 3


def lists_at(path):
    return read_split_lists(SplitSettings(kind="files", path=str(path)))


@given(st.lists(st.text(min_size=1, max_size=40), unique=True, max_size=20), st.text(min_size=1, max_size=40))
def test_adding_a_shape_moves_no_other(ids, new):
    before = {shape: assign_split("all", shape, HASH) for shape in ids}
    after = {shape: assign_split("all", shape, HASH) for shape in [new, *reversed(ids)]}
    assert before.items() <= after.items()


@given(st.text(max_size=40), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_validation_share_takes_from_training_only(shape, small, large):
    small, large = sorted((small, large))
    first = assign_split("c", shape, SplitSettings(test=0.5, val=small, train=0.5 - small))
    second = assign_split("c", shape, SplitSettings(test=0.5, val=large, train=0.5 - large))
    assert (first, second) in {("train", "train"), ("train", "val"), ("val", "val"), ("test", "test")}


def test_the_hash_keeps_its_shares_and_its_values():
    names = [f"{number:032x}" for number in range(20_000)]
    splits = [assign_split("03001627", name, HASH) for name in names]
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert splits.count(split) / len(names) == pytest.approx(share, abs=0.012)  # about four sigma
    # Golden values: another hash would silently mix training and test shapes of earlier studies.
    assert [assign_split("any", f"shape-{k}", HASH) for k in range(16)] == GOLDEN


def test_a_model_in_two_categories_has_one_split():
    assert assign_split("04401088", "1a2b", HASH) == assign_split("02992529", "1a2b", HASH)


@pytest.mark.parametrize("wrong", [{"train": 0.9}, {"kind": "files"}, {"test": 1.5, "train": -0.6}, {"path": "a"}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        SplitSettings(**wrong)


def test_csv_lists_are_read_as_text(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("\ufeffcategory,id,split\n2691156,007,Train\n02691156,1e5,validation\nall,a/b.obj,test\n")
    assert lists_at(path) == {
        ("02691156", "007"): "train",
        ("02691156", "1e5"): "val",
        ("all", "a/b.obj"): "test",
    }


def test_shrec_csv_gets_its_zeros_back(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("id,synsetId,subSynsetId,modelId,split\n000003,2691156,2690373,abc,train\n")
    assert lists_at(path) == {("02691156", "abc"): "train"}


def test_occupancy_network_lists_with_and_without_final_newline(tmp_path):
    for name, text in (("train", "a\nb"), ("val", "c\n\n"), ("test", "d\r\n")):
        (tmp_path / "03001627").mkdir(exist_ok=True)
        (tmp_path / "03001627" / f"{name}.lst").write_bytes(text.encode())
    (tmp_path / "03001627" / "some_model").mkdir()
    assert lists_at(tmp_path) == {
        ("03001627", shape): split for shape, split in {"a": "train", "b": "train", "c": "val", "d": "test"}.items()
    }


def test_lists_without_category_hold_for_all(tmp_path):
    (tmp_path / "train.lst").write_text("a\n")
    settings = SplitSettings(kind="files", path=str(tmp_path))
    lists = read_split_lists(settings)
    assert assign_split("anything", "a", settings, lists) == "train"
    assert assign_split("anything", "b", settings, lists) is None


def test_deepsdf_lists_take_their_split_from_the_file_name(tmp_path):
    for part, ids in (("train", ["a", "b"]), ("test", ["c"])):
        (tmp_path / f"sv2_chairs_{part}.json").write_text(json.dumps({"ShapeNetV2": {"03001627": ids}}))
    (tmp_path / "notes.json").write_text("[]")
    assert lists_at(tmp_path) == {("03001627", "a"): "train", ("03001627", "b"): "train", ("03001627", "c"): "test"}
    assert lists_at(tmp_path / "sv2_chairs_test.json") == {("03001627", "c"): "test"}


def test_an_id_in_two_splits_is_an_error_that_names_it(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.lst").write_text(f"shared\nonly-{name}\n")
    with pytest.raises(SplitError, match=r"1 shapes stand in two splits .*shared \(test and train\)"):
        lists_at(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("split.csv", "shape,part\na,train\n", "needs the columns"),
        ("split.csv", "id,split\na,dev\n", "line 2: split 'dev'"),
        ("chairs.json", "{}", "must contain train, val or test"),
        ("train.json", '{"a": ["b"]}', "not of the form"),
        ("train.json", "{", "cannot be read"),
        ("list.txt", "a\n", "no split list"),
        ("split.csv", "", "needs the columns"),
    ],
)
def test_lists_that_cannot_be_read_say_why(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(SplitError, match=words):
        lists_at(tmp_path / name)


def test_a_folder_without_lists_and_a_missing_one(tmp_path):
    with pytest.raises(SplitError, match="holds no split lists"):
        lists_at(tmp_path)
    with pytest.raises(SplitError, match="cannot be read"):
        lists_at(tmp_path / "absent")
