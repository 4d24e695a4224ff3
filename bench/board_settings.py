"""The section of a grid file that makes it a board: what every entry is asked for, and how it is ranked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictStr

from bench.settings import Number, Positive, Section, distinct

Metric = Literal["psnr_db", "ssim", "identified", "label_accuracy", "accuracy", "epsilon", "certificate"]


class Limits(Section):
    """How far an entry may go: defenses in one entry, images of one update, local steps of one client."""

    defenses: Positive = 20
    images_per_update: Positive = 20
    local_steps: Positive = 100


class Board(Section):
    """A board's rules; its questions are those of the grid beside it.

    `summary` is one sentence. `required` are the labels of the grid's attacks, all of which every defense must face.
    `margin`, `minimum_images` and `alpha` are those of `leaderboards.verdicts.Rule`. `metrics` are what an entry must
    have measured wherever it can be.
    """

    title: StrictStr
    summary: StrictStr
    required: Annotated[tuple[StrictStr, ...], AfterValidator(distinct)]
    metrics: Annotated[tuple[Metric, ...], AfterValidator(distinct)] = ("ssim", "psnr_db", "identified")
    margin: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    minimum_images: Positive = 100
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    limits: Limits = Limits()
