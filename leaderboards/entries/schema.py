"""The schema of an entry's files: every key, its type, and the bounds that nature sets it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model

from attacks.threat import Switch, switches
from bench.columns import KEYS
from bench.grid.cells import HELD_OUT_CLIENTS
from bench.grid.sections import kind_of
from bench.store.store import STATUSES
from bench.trial.same_class import SAME_CLASS

FORMAT = 1
"""The version of this schema, which every manifest states."""
MOST_IMAGES = 10_000
"""Images of one cell, at most."""
LENT = [name for name in KEYS if name != "attack"]
"""Columns in which the control `wrong_image` is like the cell that it borrows from."""
MOST_KEYS = 4000
"""Keys of one object, at most: the manifest has one for each file, and `untrusted` takes so many files."""
Digest = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
CellId = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{16}$")]
SheetName = Annotated[StrictStr, Field(pattern=r"^sheets/[0-9a-f]{16}\.png$")]
EntryName = Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Text = Annotated[StrictStr, Field(max_length=2000)]
Word = Annotated[StrictStr, Field(min_length=1, max_length=200)]
Count = Annotated[StrictInt, Field(ge=0, le=2**53)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# A list of a million wrong values is one mistake, not a million.
Rows = Field(max_length=MOST_IMAGES, fail_fast=True)
Few = Field(max_length=1000, fail_fast=True)
FewKeys = Field(max_length=1000)
Parameters = Annotated[dict[Word, Any], FewKeys]
Shares = Annotated[list[Share | None], Rows] | None
Numbers = Annotated[list[Finite | None], Rows] | None
Positives = Annotated[list[NotNegative | None], Rows] | None
Decibels = Annotated[list[Annotated[float, Field(strict=True, ge=0, le=100)] | None], Rows] | None
Similarities = Annotated[list[Annotated[float, Field(strict=True, ge=-1, le=1)] | None], Rows] | None
Counts = Annotated[list[Count], Rows]


class Strict(BaseModel):
    """An object without a key too many."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(Strict):
    """The public place of a defense's code that is not built in: a re-run needs it."""

    repository: Annotated[StrictStr, Field(pattern=r"^https://[\w.-]+(/[\w.~+-]+)+$", max_length=300)]
    commit: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{40}$")]
    file: Annotated[StrictStr, Field(pattern=r"^[\w-]+(/[\w-]+)*\.py$", max_length=300)]
    sha256: Digest


class Environment(Strict):
    """Versions and machines of everything that computed a part of the entry."""

    packages: Annotated[dict[Word, Word | None], FewKeys]
    python: Word
    platform: Word
    devices: Annotated[list[Word], Few]
    threads: Annotated[list[Count], Few]
    commits: Annotated[list[Word], Few]


class Manifest(Strict):
    """`entry.json`: what was submitted, how it was made, and the SHA-256 of every other file."""

    format: Literal[1]
    board: Word
    board_sha256: Digest
    name: EntryName
    submitter: Word
    note: Text
    command: Text
    plugin: Plugin | None
    environment: Environment
    config: dict[str, Any]
    truth: SheetName
    tile: tuple[Count, Count, Literal[1, 3]]
    files: Annotated[dict[Annotated[StrictStr, Field(max_length=100)], Digest], Field(max_length=MOST_KEYS)]


def _knowledge(switch: Switch) -> Any:
    """Type and default of a field of the threat model; what was added later may be missing in older entries."""
    return kind_of(switch), switch.default if switch.since else ...


_Knowledge: Any = create_model("_Knowledge", __base__=Strict, **{s.name: _knowledge(s) for s in switches()})


class Identity(_Knowledge):
    """The identity of a cell: the columns of `plan.json`; the base class has those of the threat model."""

    cell: CellId
    dataset: Word
    model: Word
    weights: Word
    attack: Text
    attack_name: Word
    attack_parameters: Parameters
    attack_order: Count
    control: StrictBool
    defense: Text
    defense_name: Word
    defense_parameters: Annotated[list[Parameters], Few]
    audited: StrictBool
    adapts: StrictBool
    recovers_labels: StrictBool
    threat_class: Annotated[StrictStr, Field(pattern="^[A-H]$")]
    public_images: Count = 0
    public_left_out: Count = 0
    public_sha256: Annotated[StrictStr, Field(pattern="^([0-9a-f]{64})?$")] = ""
    seed: Count
    images_per_update: Annotated[StrictInt, Field(ge=1, le=MOST_IMAGES)]
    local_steps: Count


class Columns(Strict):
    """One value per image in the order of image numbers; null where the whole column is.

    `found_label` is the attacker's, of the reconstruction that was matched to the image; where a cell shows several of
    an image, it has as many of each, one image after the other.
    """

    image: Counts
    trial: Counts
    true_label: Counts
    found_label: Annotated[list[Count], Field(max_length=MOST_IMAGES * HELD_OUT_CLIENTS, fail_fast=True)]
    mse: Shares
    psnr_db: Decibels
    ssim: Similarities
    lpips: Positives
    label_accuracy: Shares
    identified: Shares
    identified_by_likelihood: Shares = None
    recovered: Shares
    feature_error: Positives
    objective_start: Numbers
    objective_found: Numbers
    objective_truth: Numbers
    update_norm: Positives
    held_out_ssim: Similarities = None
    held_out_psnr_db: Decibels = None


class CellFile(Strict):
    """`cells/<id>.json`. `sheet` shows the reconstructions; `of` is the cell that the control `wrong_image` borrows.

    A sheet of the control `same_class` shows, image by image, the answers to each of its held-out clients.
    """

    identity: Identity
    status: Literal[STATUSES]  # type: ignore[valid-type]
    reason: Text
    sheet: SheetName | None
    of: CellId | None
    nulls: Annotated[dict[Word, Text], FewKeys]
    columns: Columns | None
    identification_pool: Count | None
    weights_accuracy: Share | None
    updates: Annotated[list[Digest], Rows]
    seconds: NotNegative | None
    device: Word | None

    @property
    def answers(self) -> int:
        """Reconstructions of each image."""
        return HELD_OUT_CLIENTS if self.identity.attack_name == SAME_CLASS else 1


class JobRow(Strict):
    """A training or a certificate, as a row of `bench.store.store`; numbers are null where not measured."""

    kind: Literal["training", "certificate"]
    job: Annotated[StrictStr, Field(pattern=r"^(training|certificate)-[0-9a-f]{16}$")]
    dataset: Word
    model: Word
    weights: Word | None
    defense: Text
    defense_name: Word
    defense_parameters: Annotated[list[Parameters], Few]
    images_per_update: Count
    local_steps: Count
    seed: Seed
    status: Literal[STATUSES]  # type: ignore[valid-type]
    reason: Text
    texts: Annotated[dict[Word, Text | None], FewKeys]
    figures: Annotated[dict[Word, Finite | None], FewKeys]


class Jobs(Strict):
    """`jobs.json`."""

    jobs: Annotated[list[JobRow], Field(max_length=2000, fail_fast=True)]
