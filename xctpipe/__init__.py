"""From the raw frames of an in situ tomography series to calibrated volumes and growth tables.

Axes are `(angle, row, col)` for raw data and `(z, y, x)` for volumes, z being the detector row. Pixel
centres are integers, so the axis of rotation of a centred detector of width W is at column (W - 1) / 2.
A point (x right, y down, from the axis) is seen at column `x cos a - y sin a + center_px`.
"""

from xctpipe.compiled import keep_by_source

__version__ = "0.1.0"

keep_by_source()  # before any kernel is imported
