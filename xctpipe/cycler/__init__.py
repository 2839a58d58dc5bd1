"""Files of cyclers: time, voltage and current of a cell.

Each module with a NAME and a function `understands` reads one kind of file; a new kind is one more module.
"""

from xctpipe.cycler.base import CyclerFile, ReadOptions
from xctpipe.cycler.registry import kinds, read

__all__ = ["CyclerFile", "ReadOptions", "kinds", "read"]
