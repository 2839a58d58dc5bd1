"""In situ series of the simulated cell: `plating`, `stripping` and `control`, with closed-form truth.

The same cell is seen at every size: the view is 4.16 mm wide, and cell, pixel and events scale together by
`scale_um`. At `tiny` and `small` events are sized in voxels, so that openings of 0.5 to 4 voxels and bubbles
of 4 to 20 voxels occur; at `release` in micrometers. What each series does: `plating.py`, `stripping.py`.

Limits of the model
-------------------
- Surfaces are ideal: no roughness, no wetting angle, no meniscus at the ring; NaK touches all that it can.
- NASICON is 3.27 g/cm^3 throughout; its pores are far fewer than those of a real pellet, and lie in view.
- The ceramic beyond the view has neither pores nor specks, so that no shadow of one crosses the view.
- Each crack is one smooth sheet: no branches, no path that winds. From the first shell on (P2) the ceramic
  inside it is cut off and counts as a chip; the chip of P5 is half an opening larger than that of P4, since
  its volumes are those of the bare lens. The liquid does not enter the crack before P5.
- Sodium and NaK in a crack are not told apart: what fills it is NaK.
- The stack moves rigidly between scans and stands still during one; nothing grows while it is scanned.
- The pellet does not bend, and the pressure on the stack does nothing. The counter electrode thins evenly, by
  the volume of liquid sodium over the area of the chamber, although it is wider.
- The growing bubble keeps its shape and place whatever lies near; no gravity.
- The composition of the NaK does not follow the charge.
- A tilted axis moves columns only (`Acquisition`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from xctpipe.errors import BadRecipe, nearest
from xctpipe.phantom import demo
from xctpipe.phantom.acquisition import Acquisition, with_changes
from xctpipe.phantom.bodies import Body, seen_in, view_of
from xctpipe.phantom.cell import Sample, default_pixel_um
from xctpipe.phantom.cycler import Schedule, schedule
from xctpipe.phantom.events import events_of
from xctpipe.phantom.materials import mu
from xctpipe.phantom.plating import crack_of, plating_scenes, resting_bubble, spalled
from xctpipe.phantom.scanner import simulate
from xctpipe.phantom.scenes import Scene
from xctpipe.phantom.seen import interface_seen, metal_outside_mm3, objects_seen, phases_seen, whole_chamber
from xctpipe.phantom.shapes import Cylinder, Point
from xctpipe.phantom.sizes import SIZES, Size, check_scale, down_to_digits
from xctpipe.phantom.stack import SODIUM_MM, SODIUM_MM3_PER_MAH, Stack, layers, pores_and_specks
from xctpipe.phantom.stripping import CHARGES_MAH_CM2 as STRIPPED_MAH_CM2
from xctpipe.phantom.stripping import (
    CONTACT,
    Bubbles,
    grown_by_charge,
    interfacial_voids,
    steps_up_to,
    stripping_scenes,
)
from xctpipe.phantom.timeline import CyclerRow, Series, TimeStep, TrueEvent, TrueObject
from xctpipe.scan import Scan

__all__ = ["KINDS", "CyclerRow", "Series", "TimeStep", "TrueEvent", "TrueObject", "build_series", "scan_of"]

KINDS: dict[str, int] = {"plating": 1, "stripping": -1, "control": 0}
"""Known series, and the direction of their current: 1 plates sodium into the liquid."""

_FIRST_INCLUSION = 1000
_MOST = 20_000
_CONTROL_STEPS = 4
_MAX_TURN_DEG = 0.3
_GAPS_S = 40.0
_ROUGHNESS_UM = 1.0
"""Of surfaces, where the light goes a distance: perfectly flat layers would show none of their fringes."""
# of which the radius can be asked for
_BUBBLES = {"plating": "bubble-3", "stripping": "bubble-4", "control": "bubble-3"}
# NaK height, place of the interface below the middle of the view (mm; heights of the view)
_PLATING_STACK, _STRIPPING_STACK = (0.8, -0.5, -0.18), (2.1, 0.8, 0.289)


def build_series(
    kind: str = "plating",
    *,
    size: str = "tiny",
    seed: int = 0,
    crack_opening_um: float | None = None,
    bubble_radius_um: float | None = None,
    scale_um: float | None = None,
    **options: Any,
) -> Series:
    """Series of scans of one cell, with the truth about each.

    Parameters
    ----------
    kind : `plating` (seven scans), `stripping` (five) or `control` (four of a cell in which nothing changes).
    size : `tiny` (181 projections of 64 x 96), `small` (601 of 256 x 320) or `release` (3001 of 3200 x 3200).
    seed : of the cell, its drift and all noise; the same seed gives the same series.
    crack_opening_um : largest opening of the crack while it is empty (P4); the others are in proportion:
        that of the gap under the lifted chip (P5), which NaK fills, is 4/3 of it. `control` has the crack of
        P3, which is narrower.
    bubble_radius_um : radius of the bubble: of the growing one in its last scan.
    scale_um : edge of a pixel; cell, events, charges and view scale with it, from 0.01 to 3 times the real
        cell. 4160 / columns when absent.
    **options : `energy_kev` (80), `eta_frac` (0.9: share of the stripped sodium's volume that the growing
        bubble takes up), `pauses` (True: the current is off during scans), `drift` (True), `perfect`
        (False; True: without noise and faults), `n_pores` and `n_specks` (at most 20,000), and any field of
        `Acquisition`: `rows`, `n_angles`, `photons`, `distance_mm` among them.

    Returns
    -------
    The series; `scan_of` makes the scan of each of its steps.

    Raises
    ------
    BadRecipe : the series, size or an option is unknown, or something does not fit into the view.
    """
    _check(kind, size=size, seed=seed)
    wish = _wishes(options)
    made = SIZES[size]
    acquisition = _acquisition(made, seed=seed, scale_um=scale_um, perfect=wish.perfect, changes=wish.changes)
    plan = _Plan(kind, made, seed, acquisition, wish)
    scenes = plan.scenes(_mm(crack_opening_um), _mm(bubble_radius_um))
    return plan.series(size, scenes, lengths_um=plan.lengths_um(_mm(crack_opening_um), scenes))


def scan_of(step: TimeStep, *, seed: int = 0) -> Scan:
    """Scan of one time step; its frames are computed when read, with noise of its own.

    The clock of the scan is that of the step; `seed` is the series' own.
    """
    noise = int(np.random.SeedSequence((seed, step.index, 0x5E21E5)).generate_state(1)[0])
    scan = simulate(step.sample, acquisition=step.acquisition, seed=noise, name=step.name)
    later = step.time_s - (scan.start_time.timestamp() if scan.start_time else 0.0)
    dark_flats = tuple(
        d if d.time_s is None else replace(d, time_s=d.time_s + later) for d in scan.dark_flats
    )
    return replace(scan, start_time=datetime.fromtimestamp(step.time_s, UTC), dark_flats=dark_flats)


@dataclass(frozen=True)
class _Wishes:
    """Options of a series, and changes of the acquisition."""

    energy_kev: float = 80.0
    eta_frac: float = 0.9
    pauses: bool = True
    drift: bool = True
    perfect: bool = False
    n_pores: int | None = None
    n_specks: int | None = None
    changes: Mapping[str, Any] = None  # type: ignore[assignment]


def _wishes(options: Mapping[str, Any]) -> _Wishes:
    own = {
        name: value
        for name, value in options.items()
        if name in _Wishes.__dataclass_fields__ and name != "changes"
    }
    for name in ("n_pores", "n_specks"):
        if own.get(name) is not None and not 0 <= own[name] <= _MOST:
            raise BadRecipe(f"simulate: {name} = {own[name]}; give 0 to {_MOST}")
    return _Wishes(**own, changes={name: value for name, value in options.items() if name not in own})


def _check(kind: str, *, size: str, seed: int) -> None:
    if kind not in KINDS:
        raise BadRecipe(f"simulate: no series {kind!r}; {nearest(str(kind), KINDS)}")
    if size not in SIZES:
        raise BadRecipe(f"simulate: no size {size!r}; {nearest(str(size), SIZES)}")
    if seed < 0:
        raise BadRecipe(f"simulate: seed = {seed}; give 0 or more")


def _mm(length_um: float | None) -> float | None:
    return None if length_um is None else length_um * 1e-3


def _acquisition(
    made: Size, *, seed: int, scale_um: float | None, perfect: bool, changes: Mapping[str, Any]
) -> Acquisition:
    shape = {name: changes[name] for name in ("n_angles", "rows", "cols") if name in changes}
    plain = with_changes(Acquisition(*made.shape, pixel_um=1.0), **shape)
    if plain.rows < 16 or plain.cols < 48:
        raise BadRecipe(
            f"simulate: a view of {plain.rows} x {plain.cols} pixels; "
            "the cell needs at least 16 rows x 48 columns"
        )
    pixel_um = default_pixel_um(plain.cols) if scale_um is None else scale_um
    check_scale(pixel_um, cols=plain.cols)
    # thin cracks need the fine rule for rows
    plain = with_changes(plain, pixel_um=pixel_um, instrument_seed=seed, sampling="fast")
    real = with_changes(
        demo.realistic_acquisition(plain), n_extra_angles=1, electrons_per_photon=2.3, **made.detector
    )
    if perfect:
        # the axis stays where it is, so that the same part of the cell is seen
        real = with_changes(demo.perfect_acquisition(plain), center_px=real.center_px)
    seen = with_changes(real, **changes)
    rough = bool(seen.distance_mm) and "roughness_um" not in changes
    return with_changes(seen, roughness_um=_ROUGHNESS_UM) if rough else seen


@dataclass(frozen=True)
class _Plan:
    """What a series is made from."""

    kind: str
    made: Size
    seed: int
    acquisition: Acquisition
    wish: _Wishes

    @property
    def stack(self) -> Stack:
        a = self.acquisition
        heights = _STRIPPING_STACK if self.kind == "stripping" else _PLATING_STACK
        liquid_mm, below_mm, below_frac = heights
        stack = Stack(a.rows, a.cols, a.pixel_um, 0.0, below_mm, below_frac)
        return replace(stack, liquid_mm=liquid_mm * stack.scale)

    def scenes(self, opening_mm: float | None, radius_mm: float | None) -> tuple[Scene, ...]:
        if self.kind == "stripping":
            return self._stripping(radius_mm)
        stack = self.stack
        sizes = self.made.lengths_mm(stack)
        opening = sizes.opening if opening_mm is None else opening_mm
        crack = crack_of(stack, opening_mm=opening, in_voxels=self.made.in_voxels)
        radius = self._resting_radius(stack, sizes.bubble if radius_mm is None else radius_mm)
        events = plating_scenes(stack, crack=crack, bubble_mm=radius, fixed=())
        bodies = [body for scene in events for body in scene.bodies]
        voids = interfacial_voids(
            stack, n=self.made.n_voids, contact_frac=CONTACT[:1], avoid=bodies, seed=self.seed
        )[0]
        fixed = (*voids, *self._inclusions(stack, bodies))
        if self.kind == "plating":
            return plating_scenes(stack, crack=crack, bubble_mm=radius, fixed=fixed)
        still = (*spalled(crack), resting_bubble(stack, radius_mm=radius), *fixed)
        return tuple(Scene(f"C{i}", 0.0, still) for i in range(_CONTROL_STEPS))

    def lengths_um(self, opening_mm: float | None, scenes: Sequence[Scene]) -> dict[str, float]:
        """Lengths that can be asked for, as they are in the series."""
        bubble = next(body.shape for body in scenes[-1].bodies if body.name == _BUBBLES[self.kind])
        lengths = {"bubble_radius_um": (3 / (4 * math.pi) * bubble.volume_mm3) ** (1 / 3) * 1e3}
        if self.kind == "stripping":
            return lengths
        opening = self.made.lengths_mm(self.stack).opening if opening_mm is None else opening_mm
        return {"crack_opening_um": opening * 1e3, **lengths}

    def _resting_radius(self, stack: Stack, radius_mm: float) -> float:
        largest = 0.36 * stack.scale
        if not 0 < radius_mm <= largest:
            raise BadRecipe(
                f"simulate: bubble_radius_um = {radius_mm * 1e3:.10g}; in a cell of this size give more "
                f"than 0, up to {down_to_digits(largest * 1e3):.10g}"
            )
        return radius_mm

    def _stripping(self, radius_mm: float | None) -> tuple[Scene, ...]:
        stack, eta = self.stack, self.wish.eta_frac
        sizes = self.made.lengths_mm(stack)
        grown = steps_up_to(sizes.grown if radius_mm is None else radius_mm)
        if radius_mm is None and not self.made.in_voxels:
            charges = [q * stack.scale for q in STRIPPED_MAH_CM2]
            area = stack.electrode_area_cm2
            grown = grown_by_charge(
                sizes.bubble, eta_frac=max(eta, 0.0), charges_mah_cm2=charges, area_cm2=area
            )
        bubbles = Bubbles(grown, sizes.new, sizes.pair, sizes.cut)
        fixed = self._inclusions(stack, ())
        return stripping_scenes(
            stack, bubbles=bubbles, eta_frac=eta, fixed=fixed, n_voids=self.made.n_voids, seed=self.seed
        )

    def _inclusions(self, stack: Stack, around: Sequence[Body]) -> tuple[Body, ...]:
        gap = 2 * stack.pixel_mm
        boxes = [
            tuple((low - gap, high + gap) for low, high in body.shape.bounds_mm)
            for body in around
            if body.host == "nasicon"
        ]
        wish, made = self.wish, self.made
        found = pores_and_specks(
            stack,
            counts=(
                made.n_pores if wish.n_pores is None else wish.n_pores,
                made.n_specks if wish.n_specks is None else wish.n_specks,
            ),
            radii_mm=made.inclusion_radii_mm(stack),
            keep_out=boxes,  # type: ignore[arg-type]
            seed=self.seed,
        )
        return tuple(replace(body, object=_FIRST_INCLUSION + i) for i, body in enumerate(found))

    def series(self, size: str, scenes: Sequence[Scene], *, lengths_um: Mapping[str, float]) -> Series:
        stack, a, wish = self.stack, self.acquisition, self.wish
        drifts = _drifts(stack, n=len(scenes), seed=self.seed, still=not wish.drift)
        steps = [
            self._step(i, scene, heights_mm=heights, drift=drift)
            for i, (scene, heights, drift) in enumerate(
                zip(scenes, self._heights(scenes), drifts, strict=True)
            )
        ]
        times = schedule(
            [scene.charge_mah_cm2 for scene in scenes],
            sign=KINDS[self.kind],
            scan_s=a.n_angles * a.exposure_s + _GAPS_S,
            pauses=wish.pauses,
            area_cm2=stack.electrode_area_cm2,
            contact_frac=[step.interface["contact_frac"] for step in steps],
            shorted=[step.percolates for step in steps],
        )
        settings = {"pixel_um": a.pixel_um, "energy_kev": wish.energy_kev, "eta_frac": wish.eta_frac}
        return Series(
            self.kind,
            size,
            self.seed,
            tuple(_timed(step, times) for step in steps),
            events_of(scenes, steps),
            stack.electrode_area_cm2,
            times.rows,
            {**settings, **lengths_um},
        )

    def _heights(self, scenes: Sequence[Scene]) -> list[tuple[float, float]]:
        """Heights of NaK and sodium in each scene, that keep the metal of the charge."""
        stack, sign = self.stack, KINDS[self.kind]
        area = math.pi * stack.chamber_mm**2
        outside = [metal_outside_mm3(scene.bodies, stack=stack) for scene in scenes]
        found = []
        for scene, out in zip(scenes, outside, strict=True):
            passed = sign * scene.charge_mah_cm2 * SODIUM_MM3_PER_MAH / 100
            liquid, sodium = (
                stack.liquid_mm + passed - (out - outside[0]) / area,
                SODIUM_MM * stack.scale - passed,
            )
            if sodium <= 0:
                raise BadRecipe(
                    f"simulate: {scene.charge_mah_cm2:.3g} mAh/cm2 is more than the sodium there is"
                )
            found.append((liquid, sodium))
        return found

    def _step(
        self, index: int, scene: Scene, *, heights_mm: tuple[float, float], drift: tuple[Point, float]
    ) -> TimeStep:
        stack, energy = self.stack, self.wish.energy_kev
        shift, turn = tuple(d * stack.pixel_mm for d in drift[0]), math.radians(drift[1])
        planes = layers(stack, liquid_mm=heights_mm[0], sodium_mm=heights_mm[1])
        layer = [body.moved(shift, turn_rad=turn) for body in planes]  # type: ignore[arg-type]
        bodies = [body.moved(shift, turn_rad=turn) for body in scene.bodies]  # type: ignore[arg-type]
        view = view_of(self.acquisition)
        seen = seen_in(view, bodies)
        z = stack.interface_z_mm + shift[2]
        objects = objects_seen(seen, interface_mm=z, row0_mm=stack.row0_mm, percolates=scene.percolates)
        values = {
            name: mu(name, energy_kev=energy)
            for name in sorted({b.material for b in (*layer, *bodies)} | {"void"})
        }
        chamber = next(body.shape for body in layer if body.name == "nak")
        if not isinstance(chamber, Cylinder):
            raise TypeError("the chamber is a cylinder")
        interface = interface_seen(chamber, objects, view=view, heights_mm=heights_mm)
        return TimeStep(
            name=scene.name,
            index=index,
            time_s=0.0,
            charge_mah_cm2=scene.charge_mah_cm2,
            current_ma_cm2=0.0,
            voltage_v=0.0,
            sample=Sample(tuple(body.part(values) for body in (*layer, *bodies)), energy, values),
            acquisition=self.acquisition,
            objects=objects,
            interface={
                **interface,
                "z_um": (z - stack.row0_mm) * 1e3,
                "bottleneck_um": scene.bottleneck_mm * 1e3,
            },
            phases_um3=phases_seen(layer, seen, view=view, interface_mm=z),
            percolates=bool(scene.percolates),
            shift_px=(drift[0][2], drift[0][1], drift[0][0]),
            rotation_deg=drift[1],
            whole_um3=whole_chamber(scene.bodies, stack=stack, liquid_mm=heights_mm[0]),
        )


def _timed(step: TimeStep, times: Schedule) -> TimeStep:
    i = step.index
    return replace(
        step, time_s=times.starts_s[i], current_ma_cm2=times.currents_ma_cm2[i], voltage_v=times.voltages_v[i]
    )


def _drifts(stack: Stack, *, n: int, seed: int, still: bool) -> list[tuple[Point, float]]:
    """Shift (x, y, z) in pixels and turn in degrees of each scan against the first."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0xD21F7)))
    across, along = (0.0, 0.0) if still else stack.drift_px
    turn = 0.0 if still else _MAX_TURN_DEG
    draws = rng.uniform(-1, 1, (n, 4)) * (across, across, along, turn)
    draws[0] = 0.0
    return [((x, y, z), angle) for x, y, z, angle in draws.tolist()]
