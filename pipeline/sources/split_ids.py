"""Which shape an id of a split list means.

Lists are written by hand, by other projects and on other systems, so an id may lack its suffix, carry its category
in front, or spell its umlauts with combining marks. Each is understood where just one shape can be meant.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.sources.errors import SplitError
from pipeline.sources.formats import MESHES
from pipeline.sources.taxonomy import synset_of

Name = tuple[str, str]
"""(category, id); of a list, the category is "" where none is given."""

AS_WRITTEN, NORMALISED, PREFIXED, WITHOUT_SUFFIX = range(4)
ONE_CATEGORY = {"all"}  # a directory's shapes whose block names no categories


@dataclass
class Matches:
    """What became of the ids of the lists.

    splits: shape → split. absent: listed names that no shape of the source's categories has. ambiguous: listed name →
    the shapes it may mean.
    """

    splits: dict[Name, str] = field(default_factory=dict)
    absent: list[Name] = field(default_factory=list)
    ambiguous: dict[Name, list[Name]] = field(default_factory=dict)


def match_ids(lists: Mapping[Name, str], shapes: Iterable[Name]) -> Matches:
    """Give the listed splits to the shapes of a source.

    An id that is written just as a shape's counts before one that has to be understood, and one with its category
    before one for all. Raises SplitError where two spellings of one shape are in different splits.
    """
    index = _Index(shapes)
    matches = Matches()
    found = {name: index.find(*name) for name in lists}
    givers: dict[Name, tuple[int, Name]] = {}
    for name in sorted(found, key=lambda name: (found[name][0], name[0] == "", name)):
        exactness, meant = found[name]
        if not meant:
            if index.covers(name[0]):
                matches.absent.append(name)
        elif not _distinguished(meant):
            matches.ambiguous[name] = meant
        else:
            for shape in meant:
                before = givers.setdefault(shape, (exactness, name))
                _refuse_contradiction(lists, before, (exactness, name))
                matches.splits.setdefault(shape, lists[name])
    matches.absent.sort()
    return matches


def shown(name: Name) -> str:
    """A name as category/id."""
    return "/".join(filter(None, name))


def _distinguished(meant: list[Name]) -> bool:
    """One shape, or shapes of several categories that have one id in common."""
    ids = {_normal(shape) for _, shape in meant}
    categories = {category for category, _ in meant}
    return len(ids) == 1 and len(categories) == len(meant)


def _refuse_contradiction(lists: Mapping[Name, str], one: tuple[int, Name], other: tuple[int, Name]) -> None:
    if lists[one[1]] == lists[other[1]] or one[0] == other[0] == AS_WRITTEN:
        return
    names = [f"{shown(name)} ({lists[name]})" for _, name in (one, other)]
    raise SplitError(f"one shape stands in two splits of the lists, as {' and as '.join(names)}")


class _Index:
    """The shapes of a source under every spelling that a list may use, by how much of it is understood."""

    def __init__(self, shapes: Iterable[Name]) -> None:
        self._levels: list[dict[Name, list[Name]]] = [{} for _ in range(WITHOUT_SUFFIX + 1)]
        self._categories: set[str] = set()
        for category, shape in shapes:
            self._categories.add(_normal(category))
            for level, spelling in _spellings(_normal(category), shape):
                for key in ((_normal(category), spelling), ("", spelling)):
                    self._levels[level].setdefault(key, []).append((category, shape))

    def covers(self, category: str) -> bool:
        """Whether ids of a category of the lists are expected in the source, which may be a part of what they list."""
        return category == "" or self._categories == ONE_CATEGORY or self._known(category) is not None

    def find(self, category: str, shape: str) -> tuple[int, list[Name]]:
        """How much was understood, and the shapes that the listed name may mean; none where it is not in the source."""
        known = self._known(category) if category else ""
        for level, spelling in self._readings(known, category, shape):
            if meant := self._levels[level].get((known or "", spelling)):
                return level, meant
        return WITHOUT_SUFFIX, []

    def _readings(self, known: str | None, category: str, shape: str) -> Iterator[tuple[int, str]]:
        """(level of the index, spelling to look up there), the strictest first."""
        if known is None:
            # The lists take for a category what here is a folder of the ids.
            shape = f"{category}/{shape}"
        yield AS_WRITTEN, shape
        plain = posixpath.normpath(_normal(shape)) if shape else shape
        for level in (NORMALISED, PREFIXED, WITHOUT_SUFFIX):
            yield level, plain
        bare = _without_suffix(plain)
        if bare != plain:
            yield NORMALISED, bare
            yield PREFIXED, bare

    def _known(self, category: str) -> str | None:
        """A category of the lists as the source names it; ShapeNet's may be given by name."""
        category = _normal(category)
        if category in self._categories:
            return category
        try:
            synset = synset_of(category)
        except ValueError:
            return None
        return synset if synset in self._categories else None


def _spellings(category: str, shape: str) -> Iterator[tuple[int, str]]:
    yield AS_WRITTEN, shape
    plain = _normal(shape)
    spellings = [plain, f"{category}/{plain}"]
    if plain.startswith(f"{category}/"):
        spellings.append(plain.removeprefix(f"{category}/"))
    yield NORMALISED, plain
    for spelling in spellings[1:]:
        yield PREFIXED, spelling
    if _without_suffix(plain) != plain:
        for spelling in spellings:
            yield WITHOUT_SUFFIX, _without_suffix(spelling)


def _without_suffix(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in MESHES else name


def _normal(name: str) -> str:
    """One spelling of what Unicode spells in several ways (NFC), as systems differ in the names of files."""
    return unicodedata.normalize("NFC", name)
