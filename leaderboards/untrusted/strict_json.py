"""A stranger's JSON: what would cost time or memory is found before it is parsed, the rest before it is used."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from leaderboards.untrusted.refusals import ReadLimits, refused, shown

_UTF8 = "write it as UTF-8 without a byte order mark"
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NUMBERS = bytes(ord("0") if byte in b"0123456789.eE+-" else ord(" ") for byte in range(256))
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Signs that nobody sees although `str.isprintable` lets them pass: fillers, joiners and variation selectors."""
_MARKS_IN_A_ROW = 4
"""Marks on one letter, at most; more than any living script needs cover the lines above and below."""


def parse_json(name: str, content: bytes, limits: ReadLimits, longer: Mapping[str, int]) -> dict[str, Any]:
    """The object that a JSON file holds; raises `Refused`.

    A text under a key of `longer` may have that many characters. -0 and -0.0 are numbers like others.
    """
    if content.startswith(b"\xef\xbb\xbf"):
        raise refused(name, "it begins with a byte order mark", _UTF8)
    if b"\0" in content:
        raise refused(name, "it holds a null byte, so it is no JSON in UTF-8", _UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(name, f"it is not UTF-8 at byte {error.start}", _UTF8) from error
    _check_outline(name, content, limits)
    try:
        value = json.loads(text, object_pairs_hook=partial(_object, name), parse_constant=partial(_no_number, name))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise refused(name, f"it is no JSON ({where}: {shown(error.msg)})", "write it with a JSON library") from error
    if not isinstance(value, dict):
        raise refused(name, "it holds no object", "put the value in { }")
    long = longer.keys() & value.keys()
    texts = _leaves(name, [*value, *(item for key, item in value.items() if key not in long)], limits.text_length)
    for key in long:
        texts += _leaves(name, value[key], longer[key])
    _check_signs(name, texts)
    return value


def _check_outline(name: str, content: bytes, limits: ReadLimits) -> None:
    """Depth, number of values and length of numbers; right up to the first place at which the file is no JSON."""
    unescaped = content.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    brackets = outside.translate(_BRACKETS, _NO_BRACKETS)
    if 1 + outside.count(b",") + brackets.count(b"[") > limits.json_values:
        raise refused(name, f"it holds more than {limits.json_values} values", "leave out what is not asked for")
    if b"0" * (limits.number_length + 1) in outside.translate(_NUMBERS):
        raise refused(name, f"a number has more than {limits.number_length} characters", "round it")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket == ord("[") else -1
        if depth > limits.json_depth:
            raise refused(name, f"it nests more than {limits.json_depth} deep", "make it flatter")


def _object(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise refused(name, f"the key '{shown(twice)}' stands twice in one object", "keep one of them")
    return value


def _no_number(name: str, literal: str) -> NoReturn:
    raise refused(name, f"{literal} is no number of JSON", "write null")


def _leaves(name: str, value: Any, length: int) -> list[str]:
    """All texts of a value, keys too, after a look at their lengths and at all numbers."""
    texts: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if len(item) > length:
                wrong = f"the text '{shown(item, 30)}' has {len(item)} characters, allowed are {length}"
                raise refused(name, wrong, "shorten it")
            texts.append(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise refused(name, "a number is too large for 64 bits", "write null")
        elif isinstance(item, int) and abs(item) > 2**53:
            raise refused(name, f"the number {item} lies beyond 2**53, where programs disagree on it", "write a text")
    return texts


def _check_signs(name: str, texts: list[str]) -> None:
    joined = " ".join(texts)  # A space joins with no mark, so that the whole is in order if every part is.
    signs = set(joined)
    bad = {sign for sign in signs if not sign.isprintable() or _INVISIBLE.match(sign)}
    if bad:
        text, sign = next((text, sign) for text in texts for sign in text if sign in bad)
        called = unicodedata.name(sign, unicodedata.category(sign))
        wrong = f"the text '{shown(text)}' holds U+{ord(sign):04X} ({called}), which is not seen"
        raise refused(name, wrong, "remove or replace it")
    if not unicodedata.is_normalized("NFC", joined):
        text = next(text for text in texts if not unicodedata.is_normalized("NFC", text))
        raise refused(name, f"the text '{shown(text)}' is not in Unicode's normal form C", "normalise it to NFC")
    marks = "".join(sign for sign in signs if unicodedata.category(sign) in ("Mn", "Me"))
    if marks:
        pile = re.compile(f"[{re.escape(marks)}]{{{_MARKS_IN_A_ROW + 1}}}")
        text = next((text for text in texts if pile.search(text)), None)
        if text is not None:
            wrong = f"the text '{shown(text)}' piles more than {_MARKS_IN_A_ROW} marks on one letter"
            raise refused(name, wrong, "remove some")
