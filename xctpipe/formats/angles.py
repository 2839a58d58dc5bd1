"""Rotation angles of raw scans: units, and angle counts that differ from frame counts."""

import itertools
import math

import numpy as np

from xctpipe.errors import BadScan
from xctpipe.scan import DoubleArray, RawArray

Notes = tuple[str, ...]

_RADIANS = {
    **dict.fromkeys(("deg", "degs", "degree", "degrees", "°"), math.pi / 180),
    **dict.fromkeys(("rad", "rads", "radian", "radians"), 1.0),
    **dict.fromkeys(("mrad", "milliradian", "milliradians"), 1e-3),
}
# a full turn and a little overrun: more than this cannot be one scan in radians
_LARGEST_SPAN_RAD = 2.2 * math.pi
# twenty turns: an encoder of 200 counts a degree passes this in 36 degrees
_LARGEST_SPAN_DEG = 7200.0

COUNTS_KEY = "CALC2.OUT.Value"
"""What HEX called the angle until September 2024: degrees, or counts where the PandA had no scale set."""
_DEG_A_COUNT, _ZERO_DEG = 0.005, 198.3
# degrees of one scan do not come near; a scan of 5 degrees has so many counts
_LARGEST_DEG = 1000.0


def to_radians(values: RawArray, *, unit: str = "", layout_unit: str = "") -> tuple[DoubleArray, Notes]:
    """Angles in radians, and what there is to say about their unit.

    Parameters
    ----------
    values : (angle,) as stored.
    unit : what the file or the user says; without it the range decides: a span above 2.2 pi is degrees.
    layout_unit : what the layout prescribes where the file is silent; the range still has the last word.

    Raises
    ------
    BadScan
        For other shapes than a list, angles that are not numbers, unknown units, and encoder counts.
    """
    angles = np.asarray(values)
    if angles.ndim != 1 or angles.dtype.kind not in "iuf":
        raise BadScan(f"angles are {angles.dtype} of shape {angles.shape}, not a list of numbers")
    with np.errstate(invalid="ignore"):  # a damaged file may hold signalling NaN
        angles = angles.astype(np.float64)
    _check_finite(angles)
    notes: Notes = ()
    if not unit:
        unit, notes = _judge_unit(angles, layout_unit=layout_unit)
    factor = _RADIANS.get(unit.strip().lower())
    if factor is None:
        raise BadScan(
            f"angles have the unit {unit!r}; known: {', '.join(_RADIANS)}; set raw.angle_unit = "
            "'deg' or 'rad'"
        )
    span_deg = math.degrees(_span(angles) * factor)
    if span_deg > _LARGEST_SPAN_DEG:
        raise BadScan(
            f"angles run from {angles.min():g} to {angles.max():g} {unit}, {span_deg / 360:.0f} turns: "
            "another unit, or encoder counts; set raw.angle_unit, or give angles in degrees"
        )
    return angles * factor, notes


def _check_finite(angles: DoubleArray) -> None:
    bad = np.flatnonzero(~np.isfinite(angles))
    if bad.size:
        raise BadScan(
            f"{bad.size} of {angles.size} angles are not finite, the first is number {bad[0]}: "
            f"{angles[bad[0]]}; mend the angle file or leave this scan out"
        )


def _span(angles: DoubleArray) -> float:
    return float(np.ptp(angles)) if angles.size else 0.0


def _judge_unit(angles: DoubleArray, *, layout_unit: str) -> tuple[str, Notes]:
    span = _span(angles)
    unit = "deg" if span > _LARGEST_SPAN_RAD else "rad"
    if unit == layout_unit:
        return unit, ()
    name = {"deg": "degrees", "rad": "radians"}[unit]
    return unit, (
        f"angles have no unit and span {span:.4g}: taken as {name}; set raw.angle_unit if that is wrong",
    )


def counts_to_degrees(values: RawArray) -> tuple[RawArray, Notes]:
    """Angles of HEX in degrees where they are encoder counts (beyond 1000), with a note; else as they are."""
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iuf":
        return values, ()
    with np.errstate(invalid="ignore"):
        counts = values.astype(np.float64)
    if not np.all(np.isfinite(counts)) or np.abs(counts).max() <= _LARGEST_DEG:
        return values, ()
    degrees = counts * _DEG_A_COUNT + _ZERO_DEG
    way = ", running backwards" if degrees[-1] < degrees[0] else ""
    rule = f"{_DEG_A_COUNT:g} deg a count + {_ZERO_DEG:g} deg"
    note = (
        f"{COUNTS_KEY} runs from {counts[0]:g} to {counts[-1]:g}, encoder counts: taken as {rule}, that is "
        f"{degrees[0]:.6g} to {degrees[-1]:.6g} deg{way}; set raw.angle_unit if that is wrong"
    )
    return degrees, (note,)


def repeats(angles_rad: DoubleArray) -> int:
    """How many times the same run of angles is gone through, to and fro or from the start again."""
    n = angles_rad.size
    for count in range(n // 3, 1, -1):
        if n % count:
            continue
        runs = angles_rad.reshape(count, -1)
        step = float(np.ptp(runs[0])) / (n // count - 1)
        if step > 0 and all(_alike(run, runs[0], step) or _alike(run[::-1], runs[0], step) for run in runs):
            return count
    return 1


def _alike(run: DoubleArray, other: DoubleArray, step: float) -> bool:
    # passes that interlace are shifted by a constant part of a step, jitter is not
    apart = run - other
    return bool(np.abs(apart).max() <= 0.5 * step and abs(apart.mean()) <= 0.05 * step)


def still_at_end(angles_rad: DoubleArray) -> int:
    """How many of the last angles are equal: 1 where the stage turns to the end."""
    if angles_rad.size == 0:
        return 0
    tolerance = 0.25 * _span(angles_rad) / angles_rad.size
    return _run_length(angles_rad[::-1], tolerance=tolerance)


def match_angles(n_frames: int, angles: DoubleArray) -> tuple[DoubleArray, Notes]:
    """One angle per frame, and what was done to get there.

    One angle too many: the last is dropped. Runs of equal angles at the ends that account for the excess
    belong to flats and darks and are trimmed. N*M angles for N frames: means of groups of M.

    Parameters
    ----------
    n_frames : number of projections.
    angles : (angle,) in radians, in the order of acquisition.

    Raises
    ------
    BadScan
        For any other count, and for angles that are not finite.
    """
    angles = np.asarray(angles, dtype=np.float64)
    _check_finite(angles)
    n = angles.size
    if n == n_frames:
        return angles, ()
    if n_frames > 0 and n == n_frames + 1:
        return angles[:-1], (f"{n} angles for {n_frames} frames: the last angle was dropped",)
    trim = _trim_of_runs(n_frames, angles) if n > n_frames > 1 else None
    if trim is not None:
        first, last = trim
        note = (
            f"{n} angles for {n_frames} frames: {first} equal angles at the start and {last} at the end "
            "belong to flats and darks and were left out"
        )
        return angles[first : n - last], (note,)
    if n_frames > 0 and n > 0 and n % n_frames == 0:
        groups = angles.reshape(n_frames, -1)
        # a group may straddle the wrap of the encoder from 360 to 0 degrees
        means = np.unwrap(groups, axis=1).mean(axis=1)
        return means, (f"{n} angles for {n_frames} frames: averaged in groups of {n // n_frames}",)
    raise BadScan(
        f"{n} angles for {n_frames} frames: neither equal, one more, a multiple, nor explained by runs of "
        "equal angles at the ends; frames or angles were lost, so which belongs to which is unknown"
    )


def _trim_of_runs(n_frames: int, angles: DoubleArray) -> tuple[int, int] | None:
    """Angles to leave out at the start and the end, where runs of equal angles account for the excess."""
    excess = angles.size - n_frames
    tolerance = 0.25 * _span(angles) / n_frames
    if tolerance == 0:
        return None
    start = _run_length(angles, tolerance=tolerance)
    end = _run_length(angles[::-1], tolerance=tolerance)
    # the first projection may or may not share the angle of the frames before it
    candidates = [
        (i, j)
        for i, j in itertools.product({0, start - 1, start}, {0, end - 1, end})
        if i + j == excess and 0 <= i <= start and 0 <= j <= end
    ]
    candidates = [(i, j) for i, j in candidates if (i == 0 or start > 1) and (j == 0 or end > 1)]
    if not candidates:
        return None
    return min(candidates, key=lambda c: _unevenness(angles[c[0] : angles.size - c[1]]))


def _run_length(angles: DoubleArray, *, tolerance: float) -> int:
    same = np.abs(angles - angles[0]) <= tolerance
    return int(same.size if same.all() else np.argmin(same))


def _unevenness(angles: DoubleArray) -> float:
    steps = np.diff(angles)
    return float(np.abs(steps - np.median(steps)).max(initial=0.0))


def angle_notes(angles_rad: DoubleArray, *, columns: int) -> Notes:
    """What is unusual about the angles of a scan: order, gaps, range and number."""
    n = angles_rad.size
    if n < 3:
        return (f"only {n} angles",)
    unwrapped = np.unwrap(angles_rad)
    steps = np.diff(unwrapped)
    notes: list[str] = []
    if not (np.all(steps > 0) or np.all(steps < 0)):
        way = 1 if steps.sum() > 0 else -1
        turns = int(np.count_nonzero(steps * way <= 0))
        notes.append(f"angles are not monotonic: {turns} of {n - 1} steps stand still or go back")
    step = float(np.median(np.abs(steps)))
    widest = int(np.argmax(np.abs(steps)))
    if step > 0 and abs(steps[widest]) > 2.5 * step:
        notes.append(
            f"a gap of {math.degrees(abs(steps[widest])):.3g} deg between angles {widest} and {widest + 1} "
            f"where the usual step is {math.degrees(step):.3g} deg"
        )
    notes.extend(_range_notes(math.degrees(_span(unwrapped)), step_deg=math.degrees(step)))
    if n < columns / 8:
        notes.append(f"only {n} angles for {columns} columns: expect streaks")
    return tuple(notes)


def _range_notes(span_deg: float, *, step_deg: float) -> Notes:
    covered = span_deg + step_deg
    if _turn(covered, step_deg=step_deg):
        return ()
    if covered < 180:
        wedge = f"angles span only {span_deg:.4g} deg: a wedge of {180 - covered:.4g} deg is missing"
        radians = any(abs(covered / turn - 1) < 0.02 for turn in (math.pi, 2 * math.pi))
        return (f"{wedge}; if these are radians, set raw.angle_unit = 'rad'" if radians else wedge,)
    if covered > 360:
        return (f"angles span {span_deg:.5g} deg, {covered / 360:.3g} turns: is this more than one scan?",)
    return (f"angles span {span_deg:.4g} deg, neither half a turn nor a full one",)


def _turn(covered_deg: float, *, step_deg: float) -> str:
    """Half or full turn; a scan may or may not repeat its first view at the end."""
    for turn, name in ((180.0, "half turn"), (360.0, "full turn")):
        if abs(covered_deg - turn) <= max(0.01 * turn, 1.5 * step_deg):
            return name
    return ""


def range_text(angles_rad: DoubleArray) -> str:
    """Angles in words: number, ends, step, and whether they make half a turn or a full one."""
    deg = np.degrees(angles_rad)
    if deg.size < 2:
        return f"{deg.size} angles"
    steps = np.diff(np.degrees(np.unwrap(angles_rad)))
    step_deg = float(np.median(np.abs(steps)))
    covered = abs(float(steps.sum())) + step_deg
    turn = _turn(covered, step_deg=step_deg) or f"{covered:.4g} deg"
    return f"{deg.size} angles, {deg[0]:.4f} to {deg[-1]:.4f} deg, step {np.median(steps):.4g} deg ({turn})"
