"""The axis of rotation: sinograms of a few rows to its column, its tilt, and how far to trust them."""

from xctpipe.center.registration import Opposites, opposite_frames
from xctpipe.center.result import CenterResult, RowEstimate
from xctpipe.center.rows import choose_rows, row_detail
from xctpipe.center.search import OPPOSITE_PAIRS, find_center

__all__ = [
    "OPPOSITE_PAIRS",
    "CenterResult",
    "Opposites",
    "RowEstimate",
    "choose_rows",
    "find_center",
    "opposite_frames",
    "row_detail",
]
