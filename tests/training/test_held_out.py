"""Which held-out shapes choose the best weights: even over categories, seeded, and steady as shapes come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.held_out import category_of, count_categories, even_subset

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=13)


def names_of(sizes: list[int]) -> list[str]:
    return sorted(f"{category:08d}/{shape}" for category, size in enumerate(sizes) for shape in range(size))


def chosen(names: list[str], count, seed: int = 0) -> set[str]:
    return {names[place] for place in even_subset(names, count, seed)}


@given(sizes=SIZES, count=st.integers(0, 120), seed=st.integers(0, 3))
def test_no_category_gives_more_than_one_shape_more_than_another_that_has_shapes_left(sizes, count, seed):
    names = names_of(sizes)
    taken = even_subset(names, count, seed)
    assert taken == sorted(set(taken))
    assert len(taken) == min(count, len(names))
    counts = count_categories([names[place] for place in taken])
    given_by = [counts.get(f"{category:08d}", 0) for category in range(len(sizes))]
    left = [number for number, size in zip(given_by, sizes, strict=True) if number < size]
    assert not left or max(given_by) - min(left) <= 1


def test_all_are_taken_where_all_are_asked_for_or_there_are_no_more():
    names = names_of([3, 4])
    assert even_subset(names, "all", 0) == even_subset(names, 7, 0) == list(range(7))
    assert even_subset(names, 0, 0) == even_subset([], 5, 0) == []


def test_thirteen_categories_give_seven_or_eight_of_a_hundred_each():
    names = names_of([400] * 13)
    counts = count_categories([names[place] for place in even_subset(names, 100, 5)])
    assert len(counts) == 13
    assert set(counts.values()) == {7, 8}


def test_the_choice_depends_on_the_seed_and_not_on_the_order():
    names = names_of([50, 50])
    assert chosen(names, 10, seed=1) != chosen(names, 10, seed=2)
    assert chosen(names, 10) == chosen(names[::-1], 10)


@given(sizes=SIZES, count=st.integers(1, 60), new=st.integers(0, 99))
def test_a_shape_that_joins_a_category_takes_the_place_of_one_at_most(sizes, count, new):
    names = names_of(sizes)
    before = chosen(names, count)
    after = chosen(sorted([*names, f"00000000/new {new}"]), count)
    assert len(after - before) <= 1
    assert len(before - after) <= 1


def test_what_was_chosen_is_chosen_of_itself():
    names = names_of([20, 5, 9])
    some = sorted(chosen(names, 12))
    assert chosen(some, 12) == set(some)


def test_the_category_is_what_stands_before_the_first_slash():
    assert category_of("chair/old/a.obj") == "chair"
    assert category_of("held-out 3") == ""
