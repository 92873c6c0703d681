"""Mistakes in a configuration, in words of a person: every wrong key, what was received and what is allowed."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.settings import Settings

# pydantic speaks of Python's types; a configuration has lists, and keys with values.
_KEYS_AND_VALUES = "input should be keys and values"
_WORDS = {
    "tuple_type": "input should be a list",
    "too_short": "input should be a list of at least {min_length}",
    "dict_type": _KEYS_AND_VALUES,
    "model_type": _KEYS_AND_VALUES,
    "model_attributes_type": _KEYS_AND_VALUES,
    "union_tag_invalid": "kind should be one of {expected_tags}",
    "value_error": "{error}",
    "string_type": "input should be text, in quotes where it looks like something else",
}

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 100


def explained(error: ValidationError, model: type[Settings], prefix: str = "") -> str:
    """Every mistake on a line: key path, what was received, what is allowed."""
    lines = []
    for mistake in error.errors():
        *above, last = mistake["loc"] or ("",)
        keys, known = _keys_and_fields(model, (*above, last))
        path = ".".join([prefix, *keys] if prefix else keys)
        if mistake["type"] == "extra_forbidden":
            known = _keys_and_fields(model, above)[1]
            lines.append(f"{path}: unknown key{nearest(keys[-1], known) or '; known: ' + ', '.join(sorted(known))}")
        elif not _follows(mistake):
            received = "" if mistake["type"] == "missing" else f", received {_shown.repr(mistake['input'])}"
            lines.append(f"{path}: {_words(mistake)}{received}")
    return "the configuration needs a change:\n" + "\n".join(f"  {line}" for line in lines)


def nearest(word: Any, known: list[str]) -> str:
    """The end of a message that offers the known word most like the given one, empty where none is like it."""
    close = difflib.get_close_matches(str(word), known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _words(mistake: Mapping[str, Any]) -> str:
    if mistake["type"] in _WORDS:
        return _WORDS[mistake["type"]].format(**mistake.get("ctx", {}))
    return mistake["msg"][0].lower() + mistake["msg"][1:]


def _follows(mistake: Mapping[str, Any]) -> bool:
    """A list that is only too short because its wrong entries, told on lines of their own, do not count."""
    return mistake["type"] == "too_short" and len(mistake["input"]) >= mistake["ctx"]["min_length"]


def _keys_and_fields(model: Any, location: Sequence) -> tuple[list[str], list[str]]:
    """The keys a person wrote on the way to a location, and the fields of the settings class there.

    Where a block comes in several kinds, pydantic's location holds the kind, which is no key.
    """
    keys, annotation = [], model
    for part in location:
        kinds = _kinds(annotation)
        if part in kinds:
            annotation = kinds[part]
            continue
        keys.append(str(part))
        if not isinstance(part, int):  # an index leads into what the list's annotation names
            annotation = getattr(_settings_classes(annotation)[0], "model_fields", {}).get(part, _NoField).annotation
    classes = _settings_classes(annotation)
    return keys, [name for settings in classes for name in settings.model_fields]


class _NoField:
    """Stands where a key is unknown."""

    annotation = None


def _kinds(annotation: Any) -> dict[str, type[Settings]]:
    """Kind → settings class of an annotation that unites several, each with its own literal `kind`."""
    classes = _settings_classes(annotation)
    fields = [(settings.model_fields.get("kind"), settings) for settings in classes] if len(classes) > 1 else []
    return {kind: settings for field, settings in fields if field for kind in get_args(field.annotation)}


def _settings_classes(annotation: Any) -> list[type[Settings]]:
    """The settings classes inside an annotation such as tuple[ShardCount, ...], X | None or X | Y."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _settings_classes(inner)]
