"""The site's templates: whatever is put into one is escaped, and whatever is missing is an error."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboards.site_figures import plain
from leaderboards.site_lines import STATES, VERDICTS
from leaderboards.site_names import one_line

FOLDER = Path(__file__).with_name("templates")


def pieces(text: str) -> list[str]:
    """The text on one line, cut behind the signs at which a label may be broken."""
    return [piece for piece in re.findall(r"[^_=,(|]*[_=,(|]?", one_line(text)) if piece]


@cache
def environment() -> Environment:
    """Every template with autoescape, by its name; a value that was not given raises."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"one_line": one_line, "pieces": pieces, "json": _json, "plain": plain}
    made.globals |= {"states": STATES, "verdict_words": VERDICTS, "version": _version()}
    return made


def render(template: str, path: str, **values: Any) -> bytes:
    """The page at `path` of the site, in UTF-8; `root` leads from it to the site's own folder."""
    text = environment().get_template(template).render(root="../" * path.count("/"), path=path, **values)
    # A lone surrogate of a stranger's text has no UTF-8.
    return text.encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _version() -> str:
    try:
        return version("leakboard")
    except PackageNotFoundError:
        return "from source"
