"""The simulated cell: exact projections, acquisition faults, truth.

It judges the reconstruction, so it shares conventions with it and no function.
"""

from xctpipe.phantom.acquisition import Acquisition, Stripe, measured_angles, with_changes
from xctpipe.phantom.cell import Cell, Part, Sample, build_cell, default_pixel_um
from xctpipe.phantom.demo import SIZES, simulated_scan
from xctpipe.phantom.materials import delta, mu, nak
from xctpipe.phantom.scanner import SimulatedFrames, exact_line_integrals, simulate
from xctpipe.phantom.shapes import Cylinder, Ellipsoid, Shape, line_integral, register, rotation, sphere
from xctpipe.phantom.truth import expected_noise_cm1, occupancy, render, truth

__all__ = [
    "SIZES",
    "Acquisition",
    "Cell",
    "Cylinder",
    "Ellipsoid",
    "Part",
    "Sample",
    "Shape",
    "SimulatedFrames",
    "Stripe",
    "build_cell",
    "default_pixel_um",
    "delta",
    "exact_line_integrals",
    "expected_noise_cm1",
    "line_integral",
    "measured_angles",
    "mu",
    "nak",
    "occupancy",
    "register",
    "render",
    "rotation",
    "simulate",
    "simulated_scan",
    "sphere",
    "truth",
    "with_changes",
]
