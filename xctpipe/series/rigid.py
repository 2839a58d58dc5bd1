"""Where a rigid part of the stack lies in one scan, from where it lies in another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from xctpipe.scan import DoubleArray


@dataclass(frozen=True)
class Rigid:
    """A turn about the origin and then a shift: p' = R p + s.

    Positions are (z, y, x) as in tables: z_um from the centre of detector row 0, y_um and x_um from the axis
    of rotation. Maps positions in the first scan of a series to those in a later one.
    """

    turn_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """About the axes z, y and x, as a rotation vector; one about z takes x to y."""
    shift_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Along z, y and x."""

    @property
    def matrix(self) -> DoubleArray:
        """R: (3, 3), for columns (z, y, x)."""
        z, y, x = self.turn_rad
        turned = Rotation.from_rotvec([x, y, z]).as_matrix()
        return np.asarray(turned[::-1, ::-1], dtype=np.float64)

    def __call__(self, points_um: ArrayLike) -> DoubleArray:
        """Map points: (..., 3) in micrometers."""
        points = np.asarray(points_um, dtype=np.float64)
        return np.asarray(points @ self.matrix.T + np.asarray(self.shift_um))

    @property
    def inverse(self) -> "Rigid":
        """The way back."""
        back = -(self.matrix.T @ np.asarray(self.shift_um))
        z, y, x = self.turn_rad
        return Rigid((-z, -y, -x), (float(back[0]), float(back[1]), float(back[2])))

    def after(self, first: "Rigid") -> "Rigid":
        """Both one after the other, `first` first."""
        both = Rotation.from_matrix((self.matrix @ first.matrix)[::-1, ::-1]).as_rotvec()
        shift = self(first.shift_um)
        return Rigid(
            (float(both[2]), float(both[1]), float(both[0])),
            (float(shift[0]), float(shift[1]), float(shift[2])),
        )
