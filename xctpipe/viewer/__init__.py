"""The series in napari: volumes and labels over time, with the table of objects beside them.

Whatever needs napari or a window is imported when one is opened.
"""

from xctpipe.viewer.window import open_run, show

__all__ = ["open_run", "show"]
