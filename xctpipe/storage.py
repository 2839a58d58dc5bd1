"""Files that appear whole or not at all, and what to tell the user when a disk refuses them."""

import errno
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xctpipe.errors import UserError

PARTIAL_SUFFIX = ".partial"

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_BROKEN = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT})


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` one after another as the file `path`, which readers see complete or as it was before.

    Parent folders are made. OSError where the disk refuses; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        with draft.open("wb") as file:
            file.writelines(parts)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove_partial(folder: Path | str) -> int:
    """Delete what writers that were killed left below `folder`; how many files. Never while one writes."""
    partial = list(Path(folder).rglob(f"*{PARTIAL_SUFFIX}"))
    for file in partial:
        file.unlink(missing_ok=True)
    return len(partial)


@contextmanager
def storing(path: Path | str, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the disk refuses inside the block into a UserError; any other OSError passes."""
    try:
        yield
    except OSError as err:
        if err.errno not in _NO_SPACE | _NO_PERMISSION | _BROKEN:
            raise
        raise storage_error(err, path, needed_bytes=needed_bytes) from err


def storage_error(err: OSError, path: Path | str, *, needed_bytes: int | None = None) -> UserError:
    """What to tell the user when `path` cannot be written: what, where, how much is needed, the next move.

    Parameters
    ----------
    needed_bytes : bytes of what was being written, uncompressed, if known.
    """
    path = Path(path).absolute()
    what = f"{path}: cannot write ({err.strerror or err})"
    folder = next(p for p in (path, *path.parents) if p.is_dir())
    if err.errno in _NO_PERMISSION:
        return UserError(f"{what}; make {folder} writable for you, or choose another folder")
    if err.errno in _BROKEN:
        return UserError(f"{what}; check the disk or its network, then run again: what was written is kept")
    need = "" if needed_bytes is None else f"; up to {_readable(needed_bytes)} were to be written"
    reason = {
        errno.EDQUOT: "your quota on that disk is used up",
        errno.EFBIG: "files there may not grow that large (ulimit -f)",
    }.get(err.errno or 0, f"{_readable(shutil.disk_usage(folder).free)} are free on that disk")
    return UserError(
        f"{what}{need}, {reason}; make room or choose another folder, then run again:"
        " what was written before is kept"
    )


def _readable(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
