"""Seeds for every role, each from its own stream: a function of choices, never of the method that runs."""

from __future__ import annotations

import hashlib
import json


def stream(role: str, *parts: str | int) -> int:
    """A seed in [0, 2**63) for a role ("model", "partition", "client", "attack") and what distinguishes its draws.

    The client's parts hold the digest of its private images: whoever could rebuild the noise has the images already.
    """
    text = json.dumps([role, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
