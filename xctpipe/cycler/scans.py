"""When scans were taken, and what to say where the cycler's files do not fit them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from xctpipe.cycler.base import CyclerFile
from xctpipe.cycler.history import History, duration
from xctpipe.cycler.steps import Short
from xctpipe.series.closure import UM2_PER_CM2, ceiling_um3

Row = Mapping[str, Any]

UM_PER_MAH_CM2 = ceiling_um3(1.0) / UM2_PER_CM2
"""By which the interface moves, 9.08 um: sodium in NaK over the electrode."""
_BLUR_VOXELS = 0.5
_FLOWS_MAH_CM2 = 1e-6
_ZONES_H = [sign * hours / 2 for hours in range(1, 29) for sign in (1, -1)]


@dataclass(frozen=True)
class ScanTime:
    """When a scan was taken, in s from the start of the first."""

    name: str
    start_s: float
    end_s: float | None
    end_from: str
    """How the end is known: from the `frames`' time stamps, or their `exposure` without pauses."""
    voxel_um: float | None


def scan_times(rows: Sequence[Row], *, exposure_s: float | None = None) -> tuple[list[ScanTime], list[str]]:
    """When scans were taken, in order of time, and what is odd about it; those without a start are left out.

    Parameters
    ----------
    rows : of scans, in the recipe's order, as for `charging.join_cycler`.
    exposure_s : of a frame, where a row does not know how long its scan took.
    """
    zero = first_start(rows)
    scans, told = [], []
    for row in rows:
        start = start_of(row)
        if start is None or zero is None:
            told.append(
                f"{row['scan']}: when it was taken is not known, so the cycler's file cannot be joined to "
                "it; give raw.start_times"
            )
            continue
        start_s = (start - zero).total_seconds()
        length_s, how = _length_s(row, exposure_s=exposure_s)
        end_s = None if length_s is None else round(start_s + length_s, 6)
        scans.append(ScanTime(str(row["scan"]), start_s, end_s, how, row.get("pixel_um")))
    for earlier, later in pairwise(scans):
        if later.start_s == earlier.start_s:
            told.append(
                f"{earlier.name} and {later.name} start at the same time; give raw.start_times if it is wrong"
            )
        elif later.start_s < earlier.start_s:
            told.append(
                f"{later.name} comes after {earlier.name} in the recipe but was taken "
                f"{duration(earlier.start_s - later.start_s)} before it: the order of time counts"
            )
    return sorted(scans, key=lambda scan: scan.start_s), told


def start_of(row: Row) -> datetime | None:
    """Start of a scan, with its zone; None where it is not known."""
    text = row.get("start_time")
    start = datetime.fromisoformat(str(text)) if text else None
    return start if start is None or start.tzinfo else start.replace(tzinfo=UTC)


def first_start(rows: Sequence[Row]) -> datetime | None:
    """Start of the first scan: time is counted from it."""
    return min((start for row in rows if (start := start_of(row))), default=None)


def _length_s(row: Row, *, exposure_s: float | None) -> tuple[float | None, str]:
    """How long a scan takes, and how that is known."""
    if row.get("duration_s"):
        return float(row["duration_s"]), str(row.get("end_from") or "exposure")
    if exposure_s and row.get("n_frames"):
        return exposure_s * int(row["n_frames"]), "exposure"
    return None, ""


def not_covered(
    scans: Sequence[ScanTime], history: History, files: Sequence[CyclerFile], *, outside: bool
) -> list[str]:
    """What to say of scans that the files do not cover."""
    missed = [scan for scan in scans if not history.covers(scan.start_s)]
    if not missed:
        return [
            f"{scan.name}: the cycler's files end before it does; its charge at the end is not known"
            for scan in scans
            if scan.end_s is not None and not history.covers(scan.end_s) and not outside
        ]
    told = _doubtful_zone(scans, history, files, n_covered=len(scans) - len(missed))
    if outside:
        return told
    for names, where, what in (
        ([s.name for s in missed if s.start_s < history.first_s], "before", "begin"),
        ([s.name for s in missed if s.start_s > history.last_s], "after", "end"),
    ):
        if names:
            told.append(
                f"{', '.join(names)}: taken {where} the cycler's files {what}, so charge, current and "
                "voltage are not known; add the file that covers it, or give cycler.rests_outside = true if "
                "no current flowed"
            )
    return told


def _doubtful_zone(
    scans: Sequence[ScanTime], history: History, files: Sequence[CyclerFile], *, n_covered: int
) -> list[str]:
    """What to say where the files would cover more scans with a clock some hours off, as in another zone."""
    counts = {hours: sum(history.covers(scan.start_s - hours * 3600) for scan in scans) for hours in _ZONES_H}
    most = max(counts.values())
    if most <= n_covered or (n_covered and most < len(scans)):
        return []
    hours = min((h for h, count in counts.items() if count == most), key=lambda h: (h % 1, abs(h)))
    zone = files[0].start.utcoffset() or timedelta(0)
    said = "named" if files[0].says_zone else "taken"
    way = "later" if hours > 0 else "earlier"
    apart = "no scan lies" if not n_covered else f"only {n_covered} of {len(scans)} scans lie"
    return [
        f"{apart} within the cycler's files (zone {said}: UTC{_offset(zone)}); with a clock "
        f"{abs(hours):g} h {way}, {most} would: is the time zone "
        f"UTC{_offset(zone - timedelta(hours=hours))}? give cycler.time_zone, or "
        f"cycler.clock_offset_s = {hours * 3600:g}"
    ]


def _offset(zone: timedelta) -> str:
    minutes = round(zone.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def blurred(scans: Sequence[ScanTime], columns: Mapping[str, Row]) -> list[str]:
    """Scans during which the interface moves by more than half a voxel."""
    told, estimated = [], []
    for scan in scans:
        cells = columns.get(scan.name, {})
        passed = (cells.get("charge_end_mah_cm2") or 0.0) - (cells.get("charge_mah_cm2") or 0.0)
        if "charge_end_mah_cm2" not in cells or passed <= _FLOWS_MAH_CM2:
            continue
        if scan.end_from == "exposure":
            estimated.append(scan.name)
        moved_um = UM_PER_MAH_CM2 * passed
        if scan.voxel_um and moved_um > _BLUR_VOXELS * scan.voxel_um:
            told.append(
                f"{scan.name}: {passed:.3g} mAh/cm2 passed while it was taken: {moved_um:.3g} um of sodium, "
                f"{moved_um / scan.voxel_um:.2g} voxels, so the interface is blurred; pause the current "
                "or scan faster"
            )
    if estimated:
        told.append(
            f"{', '.join(estimated)}: current flows during the scan, and when it ends is estimated from the "
            "exposure without the time between frames"
        )
    return told


def about_short(short: Short | None, history: History) -> list[str]:
    """What to say of a short that hardly any line shows."""
    if short is None or short.confirmed or short.rows > 2:
        return []
    return [
        f"a short is taken from {short.rows} line(s) of the cycler's files alone: {short.before_v:.3g} V "
        f"fall to {short.after_v:.3g} V at {duration(float(history.time_s[short.row]))}, and then no "
        "current flows"
    ]
