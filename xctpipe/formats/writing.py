"""Whether a file is still being written, judged from outside."""

import struct
import time
from pathlib import Path

RECENT_S = 30.0
"""A file that changed so lately may be growing: no detector takes longer for a frame of a fly scan."""

WRITE, SWMR = 1, 4
"""Bits of the consistency flags of an HDF5 file: open for writing; written while others read."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_flags(path: Path) -> int:
    """Consistency flags of an HDF5 file; 0 where it has none, as older formats, or cannot be read.

    Set by the program that opens the file for writing and cleared by closing it, so that a crash leaves them.
    The superblock begins at 0 or, after a user block, at 512, 1024, ...
    """
    try:
        with path.open("rb") as file:
            for start in (0, 512, 1024, 2048, 4096):
                file.seek(start)
                head = file.read(12)
                if len(head) == 12 and head.startswith(_SIGNATURE):
                    version, _, _, flags = struct.unpack("4B", head[8:])
                    return flags & (WRITE | SWMR) if version >= 3 else 0
    except OSError:
        return 0
    return 0


def changed_lately(path: Path) -> str:
    """Say that the file was changed within the last `RECENT_S` seconds; empty when it was not."""
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return ""
    # clocks of file servers differ a little from ours
    return f"{path.name} was changed {max(age_s, 0):.0f} s ago" if abs(age_s) < RECENT_S else ""


def still_written(path: Path) -> str:
    """Why the file may still be growing; empty when nothing says so."""
    if open_flags(path):
        return f"{path.name} is open for writing"
    return changed_lately(path)


def growing(path: Path) -> str:
    """End of a message about missing frames: that the file may still be growing; else empty."""
    why = still_written(path)
    return f"; {why}: if the scan goes on, wait until it is finished" if why else ""
