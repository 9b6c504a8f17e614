"""Unpack a zip archive that others made: nothing outside of its folder, no links, nothing half done."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pointloom.data.replace import replaced_folder
from pointloom.datasets.download import file_digest
from pointloom.errors import DataError

_IGNORED = ("__MACOSX", ".DS_Store")


def unpack_zip(archive: Path, target: Path, *, top: str, md5: dict[str, str]) -> int:
    """Unpack the folder ``top`` of an archive as ``target``; return the number of files.

    The whole archive is looked at before the first byte is written, and ``target`` appears only when everything is
    there and every checksum fits.

    Args:
        archive: A zip file.
        target: Folder to make; an older one is replaced.
        top: The one folder in the archive.
        md5: Publicly known checksums of single files, by path in ``top``.

    Raises:
        DataError: The archive is damaged or unsafe, is not the expected one, or the disk is too small.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = _members(archive, content, top)
            needed = sum(member.file_size for member in members.values())
            target.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(target.parent).free
            if free < needed:
                raise DataError(f"{target}: unpacked it has {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
            with replaced_folder(target) as partial:
                for path, member in members.items():
                    (partial / path).parent.mkdir(parents=True, exist_ok=True)
                    with content.open(member) as source, (partial / path).open("xb") as file:
                        shutil.copyfileobj(source, file)
                _check_sums(archive, partial, md5)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: damaged or no zip archive ({error}); remove it and download it again") from error
    return len(members)


def _members(archive: Path, content: zipfile.ZipFile, top: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files of the archive by their path in ``top``."""
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in content.infolist():
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
            raise _unsafe(archive, member, "leads out of its folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(archive, member, "is a link or a device")
        if member.flag_bits & 1:
            raise _unsafe(archive, member, "is encrypted")
        if member.is_dir() or any(part in _IGNORED for part in path.parts):
            continue
        if path.parts[0] != top or len(path.parts) < 2:
            raise DataError(f"{archive}: expected everything in the folder {top}, got {member.filename}; not unpacked")
        inside = path.relative_to(top)
        if inside in members:
            raise _unsafe(archive, member, "is in it twice")
        members[inside] = member
    if not members:
        raise DataError(f"{archive}: there are no files in it; remove it and download it again")
    return members


def _unsafe(archive: Path, member: zipfile.ZipInfo, why: str) -> DataError:
    return DataError(f"{archive}: {member.filename!r} {why}; nothing was unpacked. Do not trust this archive")


def _check_sums(archive: Path, folder: Path, md5: dict[str, str]) -> None:
    for name, expected in md5.items():
        got = file_digest(folder / name, "md5") if (folder / name).is_file() else "no such file"
        if got != expected:
            raise DataError(
                f"{archive}: {name} has the MD5 sum {got}, expected {expected}; this is not the published data. "
                "Remove the archive and download it again"
            )
