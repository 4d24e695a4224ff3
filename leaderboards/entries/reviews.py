"""Reviews of entries: a file beside the entry's folder says what was checked and by whom; no entry holds its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, ValidationError

from bench.store.whole_files import publish
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellId, Count, Digest, Few, Finite, NotNegative, Seed, Strict, Text, Word
from leaderboards.evidence.code_reviews import CodeReview, Reading
from leaderboards.untrusted.folder import Refused

OUTDONE = 0.05
"""SSIM by which a defense may give more away in a spot check than in its entry, beside both intervals."""
EntryState = Literal["self-reported", "artefact-checked", "re-run"]


class Rerun(Strict):
    """One cell computed again: mean PSNR as submitted and as found, in dB; or one training, accuracies in points."""

    what: Text
    cell: CellId | None
    submitted: Finite
    found: Finite
    tolerance: NotNegative


class Conformance(Strict):
    """The rules of the conformance suite that a plugin's method kept and broke when its entry was run again."""

    method: Text
    """The method with its parameters."""
    passed: Annotated[list[Word], Few]
    failed: Annotated[list[Word], Few]


class SpotCheck(Strict):
    """The gain of `black_box_decoder` on weights and images that a reviewer drew, beside what the entry shows."""

    defense: Text
    seed: Seed
    """The number from which everything was drawn, and can be drawn again."""
    weights: Text
    """The attacked weights, in words."""
    images: Count
    own_images: StrictBool = False
    """True if there were too few others, and the board's own images are among the attacked."""
    gain: Finite
    low: Finite
    """The lower end of its 95% interval."""
    entry_gain: Finite
    """The gain that the entry shows of this defense in the question that was drawn."""
    entry_high: Finite
    """The highest end of its 95% intervals."""

    @property
    def outdone(self) -> bool:
        """True if the defense gives more away here than in its entry, by more than both intervals and `OUTDONE`."""
        return self.low > self.entry_high + OUTDONE


class Review(Strict):
    """`<entry>.review.json`: holds for the entry whose manifest has this SHA-256, and for no other.

    What joined after the first boards is left out at its default.
    """

    entry_sha256: Digest
    state: EntryState
    checked_by: Word
    commit: Word | None
    reruns: Annotated[list[Rerun], Field(max_length=100_000)]
    read_by: Word | None = None
    """Whoever has read the code of the entry's plugin."""
    read: Word | None = None
    """One sentence of theirs: what that code does."""
    conformance: Annotated[tuple[Conformance, ...], Few] = ()
    spot_checks: Annotated[tuple[SpotCheck, ...], Few] = ()

    @property
    def of_code(self) -> CodeReview:
        """The findings about the code of the entry's plugin."""
        reading = Reading(self.read_by, self.read) if self.read_by and self.read else None
        held = bool(self.conformance) and not any(own.failed for own in self.conformance)
        return CodeReview(reading, held, any(own.outdone for own in self.spot_checks))


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
    publish(path, (json.dumps(review.model_dump(exclude_defaults=True), indent=1) + "\n").encode())
    return path


def review_path(folder: Path, name: str) -> Path:
    """The file of an entry's review."""
    return folder / f"{name}.review.json"
