"""Where compiled kernels are kept: one folder for each state of the package's sources.

Left to itself, numba asks only whether a kernel's own file has changed, not those of the kernels that it
calls, so that an update could go on with old code; and it refuses to work where neither the package nor the
home may be written.
"""

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

INNER = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of kernels that only kernels call: compiled and kept with these, and sooner, without a way in."""

SETTING = "NUMBA_CACHE_DIR"
KEPT_DAYS = 30
"""Folders of other states of the sources that were not used for so long are removed."""


def keep_by_source() -> None:
    """Tell numba the folder, unless the user has; must come before numba is imported."""
    if os.environ.get(SETTING):
        return
    for root in _roots():
        folder = root / state_of_sources()
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            folder.touch()
            if root.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
                os.environ[SETTING] = str(folder)
                _remove_old(root)
                return


def state_of_sources() -> str:
    """A name that changes with any file that speaks of numba."""
    state = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        content = path.read_bytes()
        if b"numba" in content:
            state.update(str(path).encode() + content)
    return state.hexdigest()[:16]


def _roots() -> list[Path]:
    cache = os.environ.get("XDG_CACHE_HOME")
    home = Path(cache) if cache else Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111 - never fails
    return [home / "xctpipe" / "kernels", Path(tempfile.gettempdir()) / f"xctpipe-{os.getuid()}"]


def _remove_old(root: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 86400
    for folder in root.iterdir():
        with suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
