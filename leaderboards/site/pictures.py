"""Pictures of the site: the same images of a question everywhere, chosen by rule, truth above what attacks made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.columns import facts_of, granted_text
from leaderboards.entries.entry import Entry, sheet_shape
from leaderboards.entries.schema import CellFile
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.record import HEADLINE, Variant, variant_text
from leaderboards.ranking.standing import Standing
from leaderboards.site.heat import cell_page
from leaderboards.site.results import Asked, Results
from leaderboards.untrusted.strict_png import write_png

TILE, SHEET = 96, 560
"""About so wide a tile and a sheet are shown; small pixels are enlarged by a whole factor."""
RANDOM = 3
"""Images that are drawn, beside the best and the median."""


@dataclass(frozen=True)
class Picture:
    """A PNG file of the board."""

    name: str
    """Its address within the board."""
    width: int
    """Pixels on the page."""
    height: int
    """Pixels on the page."""


@dataclass(frozen=True)
class Tile:
    """A picture with what it shows in words, and its caption; no picture where there is no result."""

    picture: Picture | None
    alt: str
    caption: str


@dataclass(frozen=True)
class GalleryRow:
    """A title, a page that tells more ("" for none), and one tile per chosen image."""

    title: str
    beside: str
    page: str
    tiles: list[Tile]


@dataclass(frozen=True)
class ImageChoice:
    """The images that stand for a question."""

    images: list[int]
    """Their numbers."""
    roles: list[str]
    """The rule by which each was chosen: best, median, random."""
    variant: Variant
    """The attack whose gains decided."""
    defense: str
    """The defense on which they were measured."""

    @property
    def attack(self) -> str:
        return variant_text(self.variant)


@dataclass
class Pictures:
    """The PNG files of a board, each written anew from its pixels: equal ones are one file."""

    files: dict[str, bytes] = field(default_factory=dict)
    _decoded: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    _names: dict[bytes, str] = field(default_factory=dict)
    _sheets: dict[tuple[str, str], Picture] = field(default_factory=dict)

    def add(self, pixels: np.ndarray, about: int) -> Picture:
        """A picture of uint8 (h w) or (h w c), shown about so wide."""
        pixels = np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        if key not in self._names:
            self._names[key] = f"images/{key.hex()[:20]}.png"
            self.files[self._names[key]] = write_png(pixels)
        height, width = pixels.shape[:2]
        factor = max(1, round(about / width))
        return Picture(self._names[key], width * factor, height * factor)

    def sheet(self, entry: Entry, name: str, count: int) -> Picture:
        """A whole sheet of so many images of an entry."""
        if (entry.name, name) not in self._sheets:
            pixels = entry.files.png(name, sheet_shape(count, entry.manifest.tile))
            self._sheets[entry.name, name] = self.add(pixels, SHEET)
        return self._sheets[entry.name, name]

    def truth(self, entry: Entry) -> np.ndarray:
        """The private images of an entry (n h w c)."""
        key = entry.name, entry.manifest.truth
        if key not in self._decoded:
            self._decoded[key] = entry.truth()
        return self._decoded[key]

    def images(self, entry: Entry, cell: CellFile) -> np.ndarray | None:
        """The reconstructions of a cell (n h w c); None where it has none of its own."""
        if cell.sheet is None:
            return None
        key = entry.name, cell.sheet
        if key not in self._decoded:
            found = entry.images(cell)
            if found is None:
                return None
            self._decoded[key] = found
        return self._decoded[key]


def choose(results: Results, asked: Asked) -> ImageChoice | None:
    """Best and median image of the undefended client's strongest attack, by SSIM gain, and three drawn once.

    Where there is no undefended client the first defense with results decides. None where nobody has any.
    """
    standings = sorted(results.standings[asked], key=lambda standing: not standing.is_undefended)
    able = [(own, variant) for own in standings if (variant := own.evidence.strongest) is not None]
    if not able:
        return None
    decides, strongest = able[0]
    gains = _strongest(decides.evidence)
    order = sorted(range(len(gains)), key=lambda i: (-gains[i], i))
    roles = {order[0]: "best"}
    roles.setdefault(order[(len(order) - 1) // 2], "median")
    drawn = [int(i) for i in np.random.default_rng(0).permutation(len(gains)) if int(i) not in roles]
    roles |= {i: "random" for i in drawn[:RANDOM]}
    numbers = [int(decides.question.images[i]) for i in roles]
    return ImageChoice(numbers, list(roles.values()), strongest, decides.defense)


def gallery_rows(
    results: Results, asked: Asked, choice: ImageChoice, defenses: Sequence[str], pictures: Pictures
) -> list[GalleryRow]:
    """The chosen images: the truth, then the strongest attack on the client that decided, then on each defense."""
    standings = {standing.defense: standing for standing in results.standings[asked]}
    owner = results.owners[choice.defense]
    truth = pictures.truth(owner)
    tiles = [
        Tile(pictures.add(truth[i], TILE), f"Private image {i}.", f"{role}: image {i}")
        for i, role in zip(choice.images, choice.roles, strict=True)
    ]
    found = [GalleryRow("private images", "", "", tiles)]
    for defense in dict.fromkeys([choice.defense, *defenses]):
        found.append(_row(results, asked, choice, standings[defense], pictures))
    return found


def _row(results: Results, asked: Asked, choice: ImageChoice, standing: Standing, pictures: Pictures) -> GalleryRow:
    defense, faced = standing.defense, results.strongest_of(standing)
    cells = [] if faced is None else results.cells[asked].get(faced, [])
    behind, several = cells[0] if cells else None, len(cells) > 1
    images = None if behind is None else pictures.images(*behind)
    if behind is None or images is None:
        return GalleryRow(defense, "no result", "", [_nothing(i) for i in choice.images])
    tiles = [_tile(pictures, images, behind[1], defense, i) for i in choice.images]
    own = behind[1].identity
    other = own.attack.partition("(")[0] + granted_text(*facts_of(vars(own)))
    beside = [*([] if standing.strongest == choice.variant else [other]), *([f"seed {own.seed}"] if several else [])]
    return GalleryRow(defense, "; ".join(beside), cell_page(*behind), tiles)


def _tile(pictures: Pictures, images: np.ndarray, cell: CellFile, defense: str, image: int) -> Tile:
    if image >= len(images) or cell.columns is None:
        return _nothing(image)
    ssim = cell.columns.ssim[image] if cell.columns.ssim else None
    told = "no SSIM" if ssim is None else f"SSIM {ssim:.2f}"
    alt = f"Image {image} as reconstructed from {defense}: {told}."
    return Tile(pictures.add(images[image], TILE), alt, told)


def _nothing(image: int) -> Tile:
    return Tile(None, "", f"image {image}: no result")


def _strongest(evidence: Evidence) -> np.ndarray:
    """Gains (n,) of the attack that is strongest on most images."""
    own = next(attempt for attempt in evidence.of_images if attempt.variant == evidence.strongest)
    return np.where(np.isnan(own.gain(HEADLINE)), -np.inf, own.gain(HEADLINE))
