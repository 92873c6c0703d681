"""Words from outside made safe to show: no invisible characters, no secrets.

HTML and XML escaping is the template's and the plotting library's work; this is what they leave in.
"""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "[hidden]"
UNPRINTABLE = "\ufffd"

# Each pattern keeps its first group and hides the rest of the match.
SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"()\bhf_[a-z0-9]{20,}",
        r"(\bauthorization\W{1,4}(?:(?:bearer|basic|token)\s+)?)[^\s\"',]+",
        r"((?:api_?key|token|secret(?:_key)?|password)[\"']?\s*[:=]\s*[\"']?)[^\s\"',]{8,}",
        r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+(?=@)",
        r"([?&](?:[\w-]*(?:signature|credential|token|key|expires|policy))=)[^\s&\"'#]+",
    )
)


def printable(text: object) -> str:
    """The text with control, formatting (as right-to-left overrides) and broken characters made visible."""
    return "".join(c if c in "\n\r\t" or unicodedata.category(c)[0] != "C" else UNPRINTABLE for c in str(text))


def redacted(text: str) -> str:
    """The text without access tokens, authorisation headers, passwords in addresses and signed query strings."""
    for pattern in SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text
