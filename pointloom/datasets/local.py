"""Which data sets are on this machine, and how the free ones come to it."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pointloom.datasets import CARDS
from pointloom.datasets.card import Archive, Card
from pointloom.datasets.download import download, file_digest
from pointloom.datasets.unpack import unpack_zip
from pointloom.errors import DataError, ParamsError

logger = logging.getLogger(__name__)


def find_local(folder: Path) -> dict[str, dict[str, Path]]:
    """Look for all data sets in a folder and its sub-folders.

    Returns:
        Data set to variant to the folder that holds it; only what is there.
    """
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())] if folder.is_dir() else []
    found: dict[str, dict[str, Path]] = {}
    for name, card in CARDS.items():
        for variant in card.trees:
            where = next((root for place in places if (root := card.locate(place, variant))), None)
            if where is not None:
                found.setdefault(name, {})[variant] = where
    return found


def describe(folder: Path) -> Iterator[str]:
    """Yield a paragraph per data set: what it is, its licence and source, and what is in ``folder``."""
    found = find_local(folder)
    for name, card in CARDS.items():
        here = found.get(name, {})
        rows = [("use", f"{card.task}: {card.size}"), ("licence", card.licence), ("source", card.source)]
        rows += [("get", f"pointloom datasets get {name} DIR{_choice(card)}")] if card.archives else []
        rows += [("here", _places(card, here))]
        yield "\n".join([f"{name}  ({card.title})", *(f"  {title:<8} {text}" for title, text in rows)])


def _choice(card: Card) -> str:
    urls = {archive.url for archive in card.archives.values()}
    return "" if len(urls) == 1 else f" --variant {'|'.join(card.archives)}"


def _places(card: Card, here: dict[str, Path]) -> str:
    if not here:
        return "not found"
    if len(card.trees) > 8:
        return f"{len(here)} of {len(card.trees)} in {next(iter(here.values()))}"
    missing = [variant for variant in card.trees if variant not in here]
    text = ", ".join(f"{variant} in {path}" for variant, path in here.items())
    return text + (f"; not found: {', '.join(missing)}" if missing else "")


def get_dataset(name: str, folder: Path, *, variant: str | None = None, keep_archive: bool = False) -> Path:
    """Download and unpack a data set that anyone may download.

    Args:
        name: A key of ``CARDS``.
        folder: Where to put the data set's own folder.
        variant: Of the data set; None where there is one archive only.
        keep_archive: Leave the archive beside the unpacked folder.

    Returns:
        The unpacked folder; if it is there already, nothing is downloaded.

    Raises:
        DataError: The owner wants to be asked, the server fails, or what came is not the published file.
        ParamsError: The name or the variant is unknown.
    """
    if name not in CARDS:
        raise ParamsError(f"unknown data set {name!r}; known: {', '.join(CARDS)}")
    archive = _archive(CARDS[name], variant)
    target = folder / archive.folder
    if target.is_dir():
        logger.info("%s is there already; remove it to download it again", target)
        return target
    logger.info("%s, about %d MB from %s", CARDS[name].title, archive.size_mb, archive.url)
    logger.info("licence: %s", CARDS[name].licence)
    file = folder / archive.url.rsplit("/", 1)[-1]
    digest = file_digest(file, "sha256") if file.is_file() else download(archive.url, file)
    _check_digest(file, digest, archive)
    num = unpack_zip(file, target, top=archive.folder, md5=dict(archive.md5))
    _record(file).write_text(f"{digest}  {file.name}\n", encoding="ascii")
    logger.info("unpacked %d files into %s", num, target)
    if not keep_archive:
        file.unlink()
    return target


def _archive(card: Card, variant: str | None) -> Archive:
    if not card.archives:
        raise DataError(
            f"{card.title} cannot be downloaded by a program: {card.licence}. Get it from {card.source}, and put it so "
            "that this is there:\n" + "\n".join(f"    {line}" for line in next(iter(card.trees.values())).splitlines())
        )
    if variant is None and len({archive.url for archive in card.archives.values()}) == 1:
        return next(iter(card.archives.values()))
    if variant not in card.archives:
        raise ParamsError(f"{card.title}: variants to download are {', '.join(card.archives)}; got {variant!r}")
    return card.archives[variant]


def _check_digest(file: Path, digest: str, archive: Archive) -> None:
    """Compare with the published SHA-256, or with that of the first download where none is published."""
    record = _record(file)
    expected = archive.sha256 or (record.read_text(encoding="ascii").split()[0] if record.is_file() else None)
    if expected is not None and digest != expected:
        raise DataError(
            f"{file}: the SHA-256 sum is {digest}, expected {expected}; the download is damaged or the owner has "
            f"changed the file. Remove it and try again{'' if archive.sha256 else f'; remove {record} to accept it'}"
        )


def _record(file: Path) -> Path:
    """Return where the sum of the first archive that could be unpacked is remembered."""
    return file.with_name(file.name + ".sha256")
