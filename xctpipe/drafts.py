"""Results for other programs: made under a temporary name, moved to their place whole, room checked first."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xctpipe.errors import BadRecipe
from xctpipe.storage import storing

_SUFFIX = ".draft"


@contextmanager
def drafted(path: Path, *, needed_bytes: int | None = None) -> Iterator[Path]:
    """A new folder beside `path` to make things in; removed at the end, so move out what is finished.

    What a process that was killed left there for the same `path` is removed first.

    Raises
    ------
    BadRecipe
        If its place is below a file.
    UserError
        If the disk is full or may not be written.
    """
    with storing(path, needed_bytes=needed_bytes):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as err:
            raise BadRecipe(f"{path.parent}: is not a folder; choose another place") from err
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{_SUFFIX}"):
            _remove_abandoned(left)
        folder = Path(tempfile.mkdtemp(_SUFFIX, f".{path.name}.", path.parent))
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)  # tells others that its owner is alive
            yield folder
        finally:
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # another process was faster
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def replace_whole(finished: Path, path: Path, *, draft: Path) -> None:
    """Move what was made in `draft` to `path`; a folder that is there goes with the draft."""
    if path.is_dir():
        path.rename(draft / "replaced")
    finished.replace(path)


def check_room(path: Path, *, needed_bytes: int) -> None:
    """BadRecipe when the disk of `path` has not this much free."""
    path = path.absolute()
    folder = next(p for p in (path, *path.parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise BadRecipe(
            f"{path}: {needed_bytes / 1e9:.3g} GB are to be written and {free / 1e9:.3g} GB are free there; "
            "make room, choose another place, or take fewer rows"
        )
