"""The pictures of a run, for galleries: truth and reconstructions by image number."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bench.store import Store

if TYPE_CHECKING:
    import numpy as np


class StoredImages:
    """Reads a run's truth once and its reconstructions block by block; all uint8 (h w c)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._truth = store.truth()
        self._blocks = {cell["cell"]: cell["blocks"] for cell in store.plan()["cells"]}
        self._load = lru_cache(maxsize=64)(self._by_image)

    def truth(self, image: int) -> np.ndarray:
        """The private image."""
        return self._truth[image]

    def reconstruction(self, cell: str, image: int) -> np.ndarray | None:
        """What the cell's attack made of the image, as matched by the referee; None without a result."""
        for block in self._blocks.get(cell, []):
            if block["start"] <= image < block["stop"]:
                return self._load(block["id"]).get(image)
        return None

    def _by_image(self, block: str) -> dict[int, np.ndarray]:
        record = self._store.record(block)
        if record is None or record["status"] != "ok":
            return {}
        images = self._store.arrays(block)["images"].transpose(0, 1, 3, 4, 2)
        return {row["image"]: images[row["position"][0], row["position"][1]] for row in record["images"]}
