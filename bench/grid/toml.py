"""Writing TOML, which Python only reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def to_toml_text(table: Mapping[str, Any]) -> str:
    """The TOML text of nested dicts, lists, strings, numbers and booleans; None is left out.

    Tables of the first level become sections, deeper ones inline tables.
    """
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    sections = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [_pair(key, value) for key, value in plain.items()]
    for name, section in sections.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [_pair(key, value) for key, value in section.items() if value is not None]
    return "\n".join(lines).lstrip("\n") + "\n"


def _pair(key: str, value: Any) -> str:
    return f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        pairs = [_pair(key, item) for key, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        items = [_value(item) for item in value]
        short = f"[{', '.join(items)}]"
        return short if len(short) <= 80 else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}: {value!r}")


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for the delete character, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
