"""What is timed: discs with closed-form projections, as raw counts with noise, stripes and zingers."""

import re
from dataclasses import dataclass, replace

import numpy as np

from xctpipe.correct.flat import FlatField
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray, RawArray
from xctpipe.steps import Facts, View

PIXEL_UM = 1.3
LARGEST = (20_000, 4096, 10_000)
SMALLEST = (16, 1, 32)

_SEED = 20
_BEAM = 30_000.0
_DARK = 100.0
_DISCS = 24
_STRIPES_FRAC = 0.02
_STRIPE = 0.03
_ZINGERS_FRAC = 2e-5


@dataclass(frozen=True)
class Size:
    """Angles, rows and columns."""

    angles: int
    rows: int
    cols: int

    def __str__(self) -> str:
        return f"{self.angles}x{self.rows}x{self.cols}"

    def narrowed(self, cols: int, *, rows: int | None = None) -> "Size":
        """The same in fewer columns and, in proportion, angles; never more."""
        cols = min(cols, self.cols)
        angles = max(SMALLEST[0], round(self.angles * cols / self.cols))
        return Size(angles, self.rows if rows is None else rows, cols)


def parse_size(text: str) -> Size:
    """Size from ANGLESxROWSxCOLUMNS; BadRecipe where it is none, or makes no sense."""
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})x(\d{1,9})", text.strip())
    if found is None:
        raise BadRecipe(f"--size {text!r}: write ANGLESxROWSxCOLUMNS, e.g. 1001x16x1024")
    numbers = [int(part) for part in found.groups()]
    for name, number, least, most in zip(
        ("angles", "rows", "columns"), numbers, SMALLEST, LARGEST, strict=True
    ):
        if not least <= number <= most:
            raise BadRecipe(f"--size {text}: {number} {name}; {least} to {most} can be timed")
    return Size(*numbers)


@dataclass(frozen=True, eq=False)
class Scene:
    """Rows of a simulated scan at each stage, all of the same sample; arrays are (angle, row, col)."""

    angles_rad: DoubleArray
    center_px: float
    dark: FloatArray
    """(row, col)"""
    flat: FloatArray
    """(row, col)"""
    raw: RawArray
    """Counts, uint16, with zingers and stripes."""
    transmission: FloatArray
    """With stripes, without zingers."""
    clean: FloatArray
    """Transmission with noise only."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.raw.shape[1])

    @property
    def flat_field(self) -> FlatField:
        """What turns the counts into transmission."""
        return FlatField(self.dark, (self.flat,))

    @property
    def facts(self) -> Facts:
        """What corrections may ask for."""
        rows, cols = self.dark.shape
        centers = np.full(rows, self.center_px)
        view = View(self.angles_rad, cols, self.center_px, centers)
        beam = self.flat - self.dark
        return Facts(
            (rows, cols), pixel_um=PIXEL_UM, energy_kev=80.0, distance_mm=300.0, beam=beam, view=view
        )

    def lines(self) -> FloatArray:
        """Line integrals of the clean transmission."""
        return -np.log(np.maximum(self.clean, 1e-4))

    def top(self, rows: int) -> "Scene":
        """The first rows only, as arrays of their own."""
        if rows >= self.rows:
            return self
        return replace(
            self,
            dark=self.dark[:rows],
            flat=self.flat[:rows],
            raw=np.ascontiguousarray(self.raw[:, :rows]),
            transmission=np.ascontiguousarray(self.transmission[:, :rows]),
            clean=np.ascontiguousarray(self.clean[:, :rows]),
        )


@dataclass(frozen=True)
class Disc:
    """A disc about (x, y) from the axis, in pixels; `mu` is its attenuation a pixel, added to others'."""

    x: float
    y: float
    radius: float
    mu: float


def make_discs(cols: int) -> list[Disc]:
    """A large disc with smaller ones of more and less attenuation; the same picture at any width."""
    random = np.random.default_rng(_SEED)
    mu = 2.0 / cols
    discs = [Disc(0.012 * cols, -0.02 * cols, 0.4 * cols, mu)]
    for radius in np.geomspace(0.004, 0.07, _DISCS) * cols:
        distance, turn = 0.36 * cols * np.sqrt(random.random()) - radius, 2 * np.pi * random.random()
        change = mu * random.choice([-0.8, -0.3, 0.5, 1.0])
        discs.append(Disc(distance * np.cos(turn), distance * np.sin(turn), float(radius), float(change)))
    return discs


def center_of(cols: int) -> float:
    """Column of the axis: off the middle, and off the centre of a pixel."""
    return (cols - 1) / 2 + round(cols / 100) + 0.25


def angles_of(n: int) -> DoubleArray:
    """Half a turn without its end, in radians."""
    return np.arange(n) * np.pi / n


def line_integrals(discs: list[Disc], *, size: Size, center_px: float) -> FloatArray:
    """Exact projections averaged over pixels, (angle, col)."""
    angles = angles_of(size.angles)
    total = np.zeros((size.angles, size.cols + 2), np.float32)
    for disc in discs:
        seen_at = disc.x * np.cos(angles) - disc.y * np.sin(angles) + center_px
        reach = np.arange(int(2 * disc.radius) + 4)
        cols = np.floor(seen_at - disc.radius - 1).astype(np.int64)[:, None] + reach
        chord = _primitive(cols - seen_at[:, None] + 0.5, disc.radius)
        chord -= _primitive(cols - seen_at[:, None] - 0.5, disc.radius)
        # what falls beside the view goes into a column on either side, which is cut off
        np.clip(cols, -1, size.cols, out=cols)
        np.add.at(total, (np.arange(size.angles)[:, None], cols + 1), disc.mu * chord)
    return np.ascontiguousarray(total[:, 1:-1])


def _primitive(distance: DoubleArray, radius: float) -> DoubleArray:
    """Integral of the chord of a circle over its distance from the middle."""
    t = np.clip(distance / radius, -1, 1)
    return np.asarray(radius**2 * (t * np.sqrt(1 - t * t) + np.arcsin(t)))


def true_slice(discs: list[Disc], *, cols: int, samples: int = 8) -> FloatArray:
    """The sample on the pixels of a slice in attenuation a pixel, averaged where an edge crosses: (y, x)."""
    at = np.arange(cols) - (cols - 1) / 2
    fine = (np.arange(samples) - (samples - 1) / 2) / samples
    image = np.zeros((cols, cols), np.float32)
    for disc in discs:
        distance = np.hypot(at - disc.x, at[:, None] - disc.y)
        part = (distance < disc.radius).astype(np.float32)
        y, x = np.nonzero(np.abs(distance - disc.radius) < 1)
        dx, dy = at[x][:, None, None] + fine - disc.x, at[y][:, None, None] + fine[:, None] - disc.y
        part[y, x] = (dx**2 + dy**2 < disc.radius**2).mean(axis=(1, 2))
        image += np.float32(disc.mu) * part
    return image


def make_scene(size: Size) -> Scene:
    """Simulate rows of one sample, each with noise, stripes and zingers of its own; the same every time."""
    random = np.random.default_rng(_SEED)
    center = center_of(size.cols)
    light = np.exp(-line_integrals(make_discs(size.cols), size=size, center_px=center))
    flat = _BEAM * (1 + 0.1 * random.random((size.rows, size.cols), np.float32))
    dark = np.full_like(flat, _DARK)
    shape = (size.angles, size.rows, size.cols)
    raw, dirty, clean = (np.empty(shape, kind) for kind in (np.uint16, np.float32, np.float32))
    for row in range(size.rows):
        beam = flat[row] - _DARK
        noise = random.standard_normal(light.shape, np.float32) * np.sqrt(light / beam)
        gain = np.where(random.random(size.cols) < _STRIPES_FRAC, 1 + _STRIPE, 1).astype(np.float32)
        clean[:, row] = light + noise
        dirty[:, row] = clean[:, row] * gain
        counts = dirty[:, row] * beam + _DARK
        for _ in range(max(1, int(_ZINGERS_FRAC * light.size))):
            counts[random.integers(size.angles), random.integers(size.cols)] += 0.5 * _BEAM
        raw[:, row] = np.clip(np.rint(counts), 0, 65535)
    return Scene(angles_of(size.angles), center, dark, flat.astype(np.float32), raw, dirty, clean)
