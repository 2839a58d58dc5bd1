"""Files that HDF5 links name: as they say, or where the files have been moved to."""

import re
from collections.abc import Iterator
from pathlib import Path

from xctpipe.errors import BadScan
from xctpipe.formats.base import RawOptions

MOST_FOLDERS = 2000
"""Folders looked into for a file that has moved; a raw folder on network storage may hold very many."""
LEVELS_UP = 4
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


def link_target(holder: Path, stated: str, *, at: str, key: str, options: RawOptions) -> tuple[Path, str]:
    """The file that the external link `at` in `holder` means, and what there is to say about it.

    A file that is not where the link says is looked for by its base name beside the holder, then by the
    end of the stated path in the folders above, then in the folders around, as far as links may lead.

    Raises
    ------
    BadScan
        When there is none, or it lies outside the folder and links may not leave it.
    """
    target = holder.parent / stated  # an absolute path stays as it is
    note = ""
    if not there(target):
        folder = _bound(holder, options=options)
        moved = _moved(holder, Path(stated), folder=None if options.follow_links_outside else folder)
        if moved is None:
            raise BadScan(
                f"{holder}: {at} is an external link to {stated} ({key}), which does not exist; "
                f"put {Path(stated).name} beside {holder.name}{_seen(holder, Path(stated))}"
            )
        target = moved
        shown = target.name if target.parent == holder.parent else str(target)
        note = f"{holder.name}: {stated}, the target of {at}, is missing: {shown} is used"
    check_inside(target, holder=holder, at=at, options=options)
    return target, note


def check_inside(target: Path, *, holder: Path, at: str, options: RawOptions) -> None:
    """BadScan when a link leads out of the folder and links may not leave it."""
    folder = _bound(holder, options=options)
    # the bound may be another scan's folder: what lies beside the holder does not leave its folder
    bounds = (folder, holder.parent.resolve())
    if not options.follow_links_outside and not any(map(target.resolve().is_relative_to, bounds)):
        raise BadScan(
            f"{holder}: {at} links to {target}, outside {folder}; "
            "set raw.follow_links_outside = true to follow it"
        )


def there(path: Path) -> bool:
    """Whether the path exists; a name that no file can have does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _bound(holder: Path, *, options: RawOptions) -> Path:
    return (options.folder or holder.parent).resolve()


def _moved(holder: Path, stated: Path, *, folder: Path | None) -> Path | None:
    """Where the file is now, inside `folder` (anywhere near when None); None when that is not sure."""
    beside = holder.parent / stated.name
    if there(beside):
        return beside
    parts = [part for part in stated.parts if part not in {"..", ".", stated.anchor}]
    above = [holder.parent, *list(holder.parent.resolve().parents)[:LEVELS_UP]]
    allowed = [base for base in above if folder is None or base.resolve().is_relative_to(folder)]
    for base in allowed:
        # a tree that was copied as a whole keeps the end of its paths
        for first in range(len(parts) - 1):
            candidate = base.joinpath(*parts[first:])
            if there(candidate):
                return candidate
    for base in allowed[:2]:
        found = [place / stated.name for place in _folders(base) if there(place / stated.name)]
        sure = [path for path in found if _belongs(path, holder)]
        if len(sure) == 1:
            return sure[0]
    return None


def _folders(base: Path) -> Iterator[Path]:
    try:
        for i, child in enumerate(sorted(base.iterdir())):
            if i >= MOST_FOLDERS:
                return
            if child.is_dir():
                yield child
    except OSError:
        return


def _belongs(path: Path, holder: Path) -> bool:
    """Whether a file of the right name is the right file, and not that of another scan."""
    if _UUID.search(path.name):
        return True
    numbers = {int(digits) for digits in re.findall(r"\d{3,}", holder.stem)} - {0}
    if numbers & {int(digits) for digits in re.findall(r"\d{3,}", path.stem)}:
        return True
    same_kind = _numberless(path.parent.name) == _numberless(holder.parent.name)
    return not same_kind and not any(path.parent.glob("*.nxs"))


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _seen(holder: Path, stated: Path) -> str:
    """Mention files of the same name nearby that may be the one meant."""
    bases = (holder.parent, holder.parent.resolve().parent)
    found = [place / stated.name for base in bases for place in _folders(base)]
    seen = list(dict.fromkeys(str(path) for path in found if there(path)))[:3]
    return f" (files of that name: {', '.join(seen)})" if seen else ""
