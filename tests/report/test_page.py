import base64
import hashlib
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from pipeline.report.page import PAGE
from pipeline.settings import module_head
from tests.report import study

HOSTILE = {
    "study": "<script>alert(1)</script>",
    "a": '"><img src=x onerror=alert(2)>',
    "1": "x' onmouseover='alert(3)",
    "2": "../../etc/passwd\u202e\x00",
    "net": "<b>net</b>{{ 7 * 7 }}",
    "reason": "</style></title><script src=http://example.org/x.js></script>&amp;",
}


class Dom(HTMLParser):
    """Tags with their attributes, and the text of the page by the tag it stands in."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self._open = [], [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def text(self, tag=None):
        return "\n".join(text for name, text in self.texts if tag in (None, name))

    def values(self, *names):
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]


@pytest.fixture(scope="module")
def plain():
    return study.report()


@pytest.fixture(scope="module")
def hostile():
    return study.report(HOSTILE)


def test_hostile_names_add_no_element_and_no_handler(plain, hostile):
    tags = [sorted(tag for tag, _ in Dom(folder[PAGE]).tags) for folder in (plain, hostile)]
    assert tags[0] == tags[1]
    assert "script" not in tags[1]
    attributes = {name for _, attrs in Dom(hostile[PAGE]).tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_hostile_names_are_shown_as_they_are(hostile):
    words = Dom(hostile[PAGE]).text()
    assert HOSTILE["study"] in words
    assert HOSTILE["net"] in words
    assert HOSTILE["1"] in words
    assert HOSTILE["reason"] in words
    assert "\u202e" not in hostile[PAGE].decode()


def test_file_names_are_digests_and_all_pictures_are_in_the_folder(hostile):
    names = set(hostile) - {PAGE}
    assert all(re.fullmatch(r"[0-9a-f]{20}\.(png|svg)", name) for name in names)
    assert set(Dom(hostile[PAGE]).values("src")) == names


def test_policy_allows_the_own_style_only_and_nothing_remote(plain):
    dom = Dom(plain[PAGE])
    policy = next(a["content"] for _, a in dom.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digest = base64.b64encode(hashlib.sha256(dom.text("style").encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert not re.search(r"unsafe|\*|https?:", policy)


def test_nothing_is_fetched_from_elsewhere(plain):
    dom = Dom(plain[PAGE])
    assert all(link.startswith(("#", "data:,")) for link in dom.values("href"))
    assert not re.search(r"url\(|@import", dom.text("style"))
    assert not dom.values("srcset", "action", "formaction", "ping", "background")
    for name, content in plain.items():
        if name.endswith(".svg"):
            assert b"<script" not in content
            assert not re.search(rb'href="(?!#)|url\((?!#)|@import', content)


def test_every_anchor_leads_to_a_section(plain):
    dom = Dom(plain[PAGE])
    anchors = {link[1:] for tag, attrs in dom.tags if tag == "a" for link in [attrs["href"]]}
    assert anchors == {attrs["id"] for tag, attrs in dom.tags if tag == "section"}


def test_best_values_and_no_others_are_bold(plain):
    first = plain[PAGE].decode().split("</table>")[0]
    assert re.findall(r"<b>([^<]*)</b>", first) == ["0.483", "0.5000", "0.525", "0.5000"]


def test_failures_and_rejections_are_counted(plain):
    words = Dom(plain[PAGE]).text()
    assert "1 of 8 reconstructions failed." in words
    assert "All 4 rejected shapes" in words
    assert "14 coordinates are not finite" in words
    assert "The same with failures dropped" in words


def test_without_failures_and_rejections_the_page_says_so():
    rows = study.wide().query("status == 'ok'")
    page = study.report(rows=rows, rejected=study.rejected().head(0))[PAGE]
    words = Dom(page).text()
    assert "No shape was rejected." in words
    assert "No reconstruction failed." in words
    assert "failures dropped</summary>" not in page.decode()


def test_what_methods_noted_of_their_reconstructions_is_shown_with_its_range():
    rows = [("net", "inverse_error", value) for value in (2e-4, 1e-3, 3e-4)]
    page = Dom(study.report(figures=pd.DataFrame(rows, columns=["method", "figure", "value"]))[PAGE])
    assert "inference" in {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    cells = [text.strip() for name, text in page.texts if name == "td"]
    start = cells.index("inverse error")
    assert cells[start + 1 : start + 5] == ["3", "0.0002", "0.0003", "0.001"]


def test_empty_sections_are_left_out():
    page = Dom(study.report(gallery=(), curves={}, cost=study.cost().head(0))[PAGE])
    sections = {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    assert sections == {"comparison", "categories", "rejected", "configuration", "environment"}
    assert {link[1:] for link in page.values("href") if link.startswith("#")} == sections


def test_a_method_without_a_mesh_shows_its_reason_in_place_of_a_picture(plain):
    page = plain[PAGE].decode()
    assert re.search(r'<div class="missing"><p>the mesh has 0 faces</p></div>\s*<figcaption>mean', page)
    pictures = [name for name in plain if name.endswith(".png")]
    assert len(pictures) == 2


def test_equal_data_give_equal_bytes(plain):
    assert study.report() == plain


def test_secrets_in_the_configuration_are_hidden():
    configuration = "source:\n  token: hf_abcdefghijklmnopqrstuvwxyz\n  tokens: 256\n"
    words = Dom(study.report(configuration=configuration)[PAGE]).text("pre")
    assert "abcdefgh" not in words
    assert "tokens: 256" in words


def test_settings_are_read_without_the_libraries():
    head = module_head("pipeline.report.page")
    assert head.ReportSettings().picture_size == 224
    assert not hasattr(head, "np")


def test_why_a_report_compares_nothing_stands_above_all_else(plain):
    page = study.report(fault="All 2 test shapes were rejected: <holes>.")[PAGE].decode()
    first = '<p class="fault" role="alert">All 2 test shapes were rejected: &lt;holes&gt;.</p>'
    assert page.split("<main>")[1].lstrip().startswith(first)
    assert '<p class="fault"' not in plain[PAGE].decode()
