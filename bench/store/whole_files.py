"""Files that are there whole or not at all, and what processes that died leave behind."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import platform
import re
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigurationError, Unwritable

if TYPE_CHECKING:
    import numpy as np

_OF_A_PROCESS = re.compile(r"\.(\d+)@(.+)\.(?:tmp|running)$")
_DAY = 24 * 3600
"""Seconds after which a mark or half file of another machine is swept away: no write takes a day."""


def process_name(pid: int | None = None) -> str:
    """This process, or another one of this machine, in a file's name."""
    return f"{os.getpid() if pid is None else pid}@{platform.node()}"


def publish(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is whole or absent: temporary, fsync, rename, fsync of the folder.

    Raises `Unwritable`; then the file is as it was before.
    """
    temporary = path.with_name(f".{path.name}.{process_name()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise Unwritable(path, error) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files and the marks of blocks in flight whose process is gone."""
    for path in folder.iterdir():
        found = _OF_A_PROCESS.search(path.name)
        if found is not None and _is_gone(int(found[1]), found[2], path):
            with suppress(OSError):
                path.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; raises ConfigurationError when it is damaged, FileNotFoundError without one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it holds no object")
    return value


def read_arrays(path: Path, digest: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file with this SHA-256; raises ConfigurationError when it is missing or damaged."""
    import numpy as np

    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing; give the run's command again") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise damaged(path, "its SHA-256 is not the recorded one")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> ConfigurationError:
    """The error about a file that changed after it was published."""
    return ConfigurationError(f"{path} is damaged: {reason}; delete it and give the run's command again")


def finite(value: Any) -> Any:
    """The value of a record with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some network file systems cannot.
            raise
    finally:
        os.close(handle)


def _is_gone(pid: int, machine: str, path: Path) -> bool:
    if machine != platform.node():
        # Nobody here can ask that machine; no write takes a day.
        with suppress(OSError):
            return time.time() - path.stat().st_mtime > _DAY
        return False
    if pid == os.getpid():  # A number that was given again: this process has not begun yet.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False
