"""Reviews of entries: a file beside the entry's folder says what was checked and by whom; no entry holds its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bench.store.whole_files import publish
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellId, Digest, Finite, NotNegative, Strict, Text, Word
from leaderboards.untrusted.folder import Refused

EntryState = Literal["self-reported", "artefact-checked", "re-run"]


class Rerun(Strict):
    """One cell computed again: mean PSNR as submitted and as found, in dB; or one training, accuracies in points."""

    what: Text
    cell: CellId | None
    submitted: Finite
    found: Finite
    tolerance: NotNegative


class Review(Strict):
    """`<entry>.review.json`: holds for the entry whose manifest has this SHA-256, and for no other."""

    entry_sha256: Digest
    state: EntryState
    checked_by: Word
    commit: Word | None
    reruns: Annotated[list[Rerun], Field(max_length=100_000)]


def read_review(folder: Path, entry: Entry) -> Review | None:
    """The review of an entry beside its folder; None without one, or when the entry has changed since."""
    path = review_path(folder, entry.name)
    if not path.is_file():
        return None
    try:
        review = Review.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        raise Refused(f"{path}: {str(error).splitlines()[0]}; check the entry again") from error
    return review if review.entry_sha256 == entry.digest else None


def write_review(folder: Path, name: str, review: Review) -> Path:
    """Publish the review of an entry; returns its file."""
    path = review_path(folder, name)
    publish(path, (json.dumps(review.model_dump(), indent=1) + "\n").encode())
    return path


def review_path(folder: Path, name: str) -> Path:
    """The file of an entry's review."""
    return folder / f"{name}.review.json"
