"""The axis of rotation: sinograms of a few rows to its column, its tilt, and how far to trust them."""

from xctpipe.center.result import CenterResult, RowEstimate
from xctpipe.center.rows import choose_rows, row_detail
from xctpipe.center.search import find_center

__all__ = ["CenterResult", "RowEstimate", "choose_rows", "find_center", "row_detail"]
