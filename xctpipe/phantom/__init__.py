"""The simulated cell: exact projections, acquisition faults, truth.

It judges the reconstruction, so it shares conventions with it and no function.
"""

from xctpipe.phantom.acquisition import Acquisition, Stripe, measured_angles, with_changes
from xctpipe.phantom.caps import (
    Annulus,
    CapShell,
    ClippedEllipsoid,
    LiftedGap,
    cap_void,
    lens,
    penny,
    surface_crack,
)
from xctpipe.phantom.cell import Cell, Part, Sample, build_cell, default_pixel_um
from xctpipe.phantom.demo import SIZES, simulated_scan
from xctpipe.phantom.labels import label_slabs, labels_of
from xctpipe.phantom.materials import delta, mu, nak
from xctpipe.phantom.scanner import SimulatedFrames, exact_line_integrals, simulate
from xctpipe.phantom.series import Series, build_series, scan_of
from xctpipe.phantom.shapes import Cylinder, Ellipsoid, Shape, line_integral, register, rotation, sphere
from xctpipe.phantom.tables import tables_of, truth_of
from xctpipe.phantom.truth import expected_noise_cm1, occupancy, render, truth

__all__ = [
    "SIZES",
    "Acquisition",
    "Annulus",
    "CapShell",
    "Cell",
    "ClippedEllipsoid",
    "Cylinder",
    "Ellipsoid",
    "LiftedGap",
    "Part",
    "Sample",
    "Series",
    "Shape",
    "SimulatedFrames",
    "Stripe",
    "build_cell",
    "build_series",
    "cap_void",
    "default_pixel_um",
    "delta",
    "exact_line_integrals",
    "expected_noise_cm1",
    "label_slabs",
    "labels_of",
    "lens",
    "line_integral",
    "measured_angles",
    "mu",
    "nak",
    "occupancy",
    "penny",
    "register",
    "render",
    "rotation",
    "scan_of",
    "simulate",
    "simulated_scan",
    "sphere",
    "surface_crack",
    "tables_of",
    "truth",
    "truth_of",
    "with_changes",
]
