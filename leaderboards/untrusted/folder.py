"""The one place through which files of strangers are read: JSON and PNG in a folder that is listed first.

Whatever is wrong raises `Refused`, before content is read where the listing shows it, and before it is expanded where
the content shows it. A text that passes may still hold HTML or a script, and pixels may hold anything: whoever prints
one escapes it, whoever publishes a picture writes it anew with `write_png`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards.untrusted.refusals import LIMITS, ReadLimits, Refused, refused, shown
from leaderboards.untrusted.strict_json import parse_json
from leaderboards.untrusted.strict_png import decode_png, write_png

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LIMITS", "Folder", "ReadLimits", "Refused", "read_folder", "write_png"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?")
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?")
_ENDINGS = (".json", ".png")
_AGAIN = "pack the submission again"
_QUIETLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""A link is not followed and a pipe does not wait for its writer."""

FileMark = tuple[int, int, int, int, int]
"""Device, inode, bytes, modification and change: a file that keeps them is the file that was listed."""


@dataclass(frozen=True)
class Folder:
    """A submission that was listed and found in order."""

    path: Path
    limits: ReadLimits
    marks: Mapping[str, FileMark]
    """Files by their names, such as `cells/0123.json`."""
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return tuple(sorted(self.marks))

    def json(self, name: str, longer: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The object of a JSON file.

        `longer` gives the length allowed to texts under one of the object's keys instead of `text_length`.
        """
        return parse_json(name, self._content(name, ".json"), self.limits, longer or {})

    def png(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The pixels of a PNG file, uint8 (h w) or (h w 3), read-only; of this shape if one is given."""
        return decode_png(name, self._content(name, ".png"), self.limits, shape)

    def digest(self, name: str) -> str:
        """SHA-256 of the bytes that every reading of this file gives, in hex."""
        if name not in self._digests:
            self._content(name, Path(name).suffix)
        return self._digests[name]

    def _content(self, name: str, ending: str) -> bytes:
        if name not in self.marks:
            raise refused(name, "it is missing", _AGAIN)
        if not name.endswith(ending):
            raise refused(name, f"a file that ends in {ending} belongs here", _AGAIN)
        size = self.marks[name][2]
        try:
            with open(self.path / name, "rb", opener=lambda path, _: os.open(path, _QUIETLY)) as file:
                same = _mark(os.fstat(file.fileno())) == self.marks[name]
                content = file.read(size + 1) if same else b""
        except OSError as error:
            raise _unreadable(name, error) from error
        digest = hashlib.sha256(content).hexdigest()
        if not same or len(content) != size or self._digests.setdefault(name, digest) != digest:
            raise refused(name, "it changed after it was listed", "read the submission again when nobody writes to it")
        return content


def read_folder(folder: Path, limits: ReadLimits = LIMITS) -> Folder:
    """List a submission without following a link and without reading a file; raises `Refused`."""
    found: dict[str, FileMark | None] = {}
    name = folder.name or "."
    try:
        kind = os.lstat(folder).st_mode
    except OSError as error:
        raise _unreadable(name, error) from error
    if stat.S_ISLNK(kind):
        raise refused(name, "the submission is a link", "name the folder that it leads to")
    if not stat.S_ISDIR(kind):
        raise refused(name, "it is not a folder", "name the folder of the submission, unpacked")
    with _opened(name, folder, None) as handle:
        _list(handle, "", found, limits)
    marks = {name: mark for name, mark in found.items() if mark is not None}
    total = sum(mark[2] for mark in marks.values())
    if total > limits.most_bytes:
        raise refused(name, f"its files have {total} bytes together, allowed are {limits.most_bytes}", _AGAIN)
    return Folder(folder, limits, marks)


def _list(handle: int, inside: str, found: dict[str, FileMark | None], limits: ReadLimits) -> None:
    """Enter what the folder holds in `found`: a file with its mark, a folder with None."""
    here: list[os.DirEntry[str]] = []
    with os.scandir(handle) as entries:
        for entry in entries:
            here.append(entry)
            found[inside + entry.name] = None
            if len(found) > limits.most_files:
                raise refused(inside or ".", f"there are more than {limits.most_files} files and folders", _AGAIN)
    here.sort(key=lambda entry: entry.name)
    seen: dict[str, str] = {}
    for entry in here:
        twin = seen.setdefault(entry.name.casefold(), entry.name)
        if twin != entry.name:
            wrong = f"only upper and lower case tell it from {shown(twin)}"
            raise refused(inside + entry.name, wrong, "rename one of them")
    for entry in here:
        name = inside + entry.name
        _check_name(name, entry.name, limits)
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            raise _unreadable(name, error) from error
        if stat.S_ISDIR(status.st_mode):
            if name.endswith(_ENDINGS):
                raise refused(name, "it is a folder with a file's name", "put the file itself there")
            if name.count("/") >= limits.folders_deep:
                raise refused(name, f"folders lie more than {limits.folders_deep} deep", _AGAIN)
            with _opened(name, Path(entry.name), handle) as deeper:
                _list(deeper, f"{name}/", found, limits)
        else:
            _check_file(name, status, limits)
            found[name] = _mark(status)


def _check_name(name: str, last: str, limits: ReadLimits) -> None:
    if len(last) > limits.name_length:
        raise refused(name, f"its name is longer than {limits.name_length} characters", "shorten it")
    if last.startswith("."):
        raise refused(name, "it is a hidden file", "delete it")
    if not _NAME.fullmatch(last):
        raise refused(name, "its name holds other signs than a-z, 0-9 and . _ - inside", "rename it")
    if _DEVICE.fullmatch(last):
        raise refused(name, "its name is a device's on Windows", "rename it")


def _check_file(name: str, status: os.stat_result, limits: ReadLimits) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise refused(name, "it is a symbolic link", "put the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise refused(name, "it is neither a file nor a folder", "delete it")
    if status.st_nlink != 1:
        raise refused(name, "it is a hard link to another file", "put a copy there")
    if not name.endswith(_ENDINGS):
        raise refused(name, "its name ends neither in .json nor in .png", "delete it")
    most = limits.json_bytes if name.endswith(".json") else limits.png_bytes
    if status.st_size > most:
        raise refused(name, f"it has {status.st_size} bytes, allowed are {most}", _AGAIN)


@contextmanager
def _opened(name: str, path: Path, parent: int | None) -> Iterator[int]:
    try:
        handle = os.open(path, _QUIETLY | os.O_DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise _unreadable(name, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _mark(status: os.stat_result) -> FileMark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unreadable(name: str, error: OSError) -> Refused:
    return refused(name, f"it cannot be opened ({error.strerror})", "make it a file or folder that you may read")
