"""Names are one where Unicode calls them equal."""

import unicodedata

from pipeline.names import by_name, composed, same_name

NFC, NFD = (unicodedata.normalize(form, "Stühle/größe é.obj") for form in ("NFC", "NFD"))


def test_both_ways_of_writing_a_name_are_one():
    assert NFC != NFD and composed(NFD) == composed(NFC) == NFC
    assert same_name(NFC, ["a", NFD]) == NFD and same_name(NFD, ["a", NFC]) == NFC
    assert same_name(NFC, [NFD, NFC]) == NFC  # itself first
    assert same_name(NFC, ["Stuhle/grosse e.obj"]) is None
    assert by_name({NFD: 1, "a": 2}, NFC) == 1 and by_name({NFD: 1, NFC: 2}, NFC) == 2
    assert by_name({"a": 2}, NFC) is None
