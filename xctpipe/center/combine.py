"""One answer from the lines that the methods found, how far to trust it, and what to tell the user."""

import numpy as np

from xctpipe.center.lines import Line
from xctpipe.center.result import CenterResult, is_sure_slope
from xctpipe.scan import DoubleArray

NOISE_SIGNIFICANCE = 5.5
SURE_SIGNIFICANCE = 12.0
FALSE_SHARPNESS = 1.2
"""Slices about wrong axes hardly ever seem sharper, in the units of their significance."""
DISSENT = 0.5
"""From this signal on a method that disagrees is named."""
FLOOR_PX = 0.03
SEAM_SIGMA_PX = 0.3
SEAM_METHODS = ("registration", "wedge", "turn")
DISAGREEMENT_PX = 1.0
UNCERTAIN_PX = 0.5
ENOUGH_ROWS = 4
UNSEEN_TILT = 2.0
NEXT_MOVE = "or give center.center_px"


def combine(
    lines: list[Line], *, seams: int, rows: DoubleArray, search_px: tuple[float, float]
) -> CenterResult:
    """Mean of the lines weighted by inverse variance, without those that do not stand out of noise.

    Registration and wedge look at the same `seams`, the moments at which the scan closes, and count as one
    source; what moves between the ends of a scan adds a variance to both that no scatter over rows shows.
    """
    kept = _together(lines)
    centers = np.array([line.center_px for line in kept])
    at_seam = np.array([line.method in SEAM_METHODS for line in kept])
    variance = np.array([line.fit.sigma_px**2 for line in kept]) + FLOOR_PX**2
    variance += np.where(at_seam, SEAM_SIGMA_PX**2 / seams, 0.0)
    weight = np.where(at_seam, 1 / max(at_seam.sum(), 1), 1.0) / variance
    weight /= weight.sum()
    center = float(weight @ centers)
    part = weight * np.sqrt(variance)
    own = part[at_seam].sum() ** 2 + np.sum(part[~at_seam] ** 2)
    sigma = float(np.sqrt(own + weight @ (centers - center) ** 2))
    slope, slope_sigma = _slope(kept)
    return CenterResult(
        center_px=center,
        row_mid=float(rows.min() + rows.max()) / 2,
        uncertainty_px=sigma,
        confidence=_confidence(lines, sigma_px=sigma),
        tilt_deg=float(np.degrees(np.arctan(slope))),
        tilt_uncertainty_deg=float(np.degrees(np.arctan(slope_sigma))),
        slope_px_per_row=slope,
        methods={line.method: (line.center_px, line.fit.spread_px) for line in lines},
        estimates=tuple(row for line in lines for row in line.rows),
        warnings=(
            *_doubts(lines, search_px=search_px),
            *_disagreement(lines, n_rows=rows.size),
            *_geometry(center, sigma_px=sigma, slope=slope, slope_sigma=slope_sigma, rows=rows),
        ),
    )


def _slope(lines: list[Line]) -> tuple[float, float]:
    """Mean slope and its standard deviation over the lines that tell one.

    What the ends of the scan alone say, while the slices are sharp in few rows only, is half as sure.
    """
    telling = [line for line in lines if np.isfinite(line.fit.slope_sigma)]
    known = [line.fit for line in telling]
    if not known:
        return 0.0, float("nan")
    weight = np.array([1 / (fit.slope_sigma**2 + 1e-12) for fit in known])
    weight /= weight.sum()
    slopes = np.array([fit.slope for fit in known])
    mean = float(weight @ slopes)
    variance = weight @ [fit.slope_sigma**2 for fit in known] + weight @ (slopes - mean) ** 2
    silent = {line.method in SEAM_METHODS for line in lines} != {
        line.method in SEAM_METHODS for line in telling
    }
    return mean, float(np.sqrt(variance)) * (UNSEEN_TILT if silent else 1.0)


def _confidence(lines: list[Line], *, sigma_px: float) -> float:
    """Product of five factors in [0, 1], see `find_center`."""
    doubt = np.prod([1 - signal(line) for line in lines])
    agreement = _agreement(lines) if len(_sound(lines)) > 1 else 0.7
    precision = 1 / (1 + (sigma_px / 0.5) ** 2)
    rows = min(1.0, (1 + max(line.agreeing for line in lines)) / ENOUGH_ROWS)
    seen = [line for line in lines if line.significance >= NOISE_SIGNIFICANCE]
    edge = 0.2 if any(line.at_edge for line in seen) else 1.0
    return float((1 - doubt) * agreement * precision * rows * edge)


def signal(line: Line) -> float:
    """0 where a line does not stand out of noise, 1 where it surely does."""
    low, high = NOISE_SIGNIFICANCE, SURE_SIGNIFICANCE
    return float(np.clip((line.significance - low) / (high - low), 0, 1)) if stands_out(line) else 0.0


def stands_out(line: Line) -> bool:
    """Whether both the sum over rows and the rows by themselves see the axis."""
    return line.significance >= NOISE_SIGNIFICANCE and line.agreeing >= min(2, len(line.rows) / 2)


def _sound(lines: list[Line]) -> list[Line]:
    """Lines that stand out of the noise; all of them if none does."""
    return [line for line in lines if stands_out(line)] or lines


def _best(lines: list[Line]) -> Line:
    """The line on which most rows agree; where none stands out, the one nearest to it."""
    sound = _sound(lines)
    if any(map(stands_out, sound)):
        return max(sound, key=lambda line: line.agreeing / len(line.rows) * (0.1 + signal(line)))
    return max(sound, key=_height)


def _height(line: Line) -> float:
    """Significance in units of what false axes reach."""
    return line.significance / (FALSE_SHARPNESS if line.method == "sharpness" else NOISE_SIGNIFICANCE)


def _together(lines: list[Line]) -> list[Line]:
    """Sound lines that agree with the best; the others are said, not averaged in."""
    best = _best(lines)
    return [line for line in _sound(lines) if abs(line.center_px - best.center_px) <= 2 * DISAGREEMENT_PX]


def _agreement(lines: list[Line]) -> float:
    """1 where all agree with the best, 0 where one is elsewhere that is sure of it."""
    best_px = _best(lines).center_px
    off_px = np.array([line.center_px - best_px for line in lines])
    signals = np.array([signal(line) for line in lines])
    return float(np.prod(1 - signals * (1 - np.exp(-((off_px / 2) ** 2)))))


def _voices(lines: list[Line]) -> list[Line]:
    """The best line and those that are sure enough to be heard against it."""
    best = _best(lines)
    return [line for line in lines if line is best or signal(line) >= DISSENT]


def _doubts(lines: list[Line], *, search_px: tuple[float, float]) -> list[str]:
    out = []
    alone = sum(stands_out(line) for line in lines) < 2
    for line in lines:
        if alone and not stands_out(line):
            seen = (
                f"{line.significance:.1f} standard deviations, {NOISE_SIGNIFICANCE} needed"
                if line.significance < NOISE_SIGNIFICANCE
                else f"only {line.agreeing} of {len(line.rows)} rows see it"
            )
            out.append(
                f"{line.method}: no axis stands out of the noise (best {line.center_px:.1f} px, {seen}); use "
                f"rows with more detail, average adjacent rows, {NEXT_MOVE}"
            )
        if line.at_edge:
            out.append(
                f"{line.method}: the best axis lies at or beyond the edge of the search, "
                f"{search_px[0]:.1f} to {search_px[1]:.1f} px; widen the search {NEXT_MOVE}"
            )
    return out


def _disagreement(lines: list[Line], *, n_rows: int) -> list[str]:
    out, voices = [], _voices(lines)
    apart_px = float(np.ptp([line.center_px for line in voices]))
    if apart_px > DISAGREEMENT_PX:
        found = ", ".join(f"{line.method} {line.center_px:.2f} px" for line in voices)
        out.append(
            f"the methods disagree by {apart_px:.2f} px ({found}): the sample may have moved between "
            f"the ends of the scan, or the angles are wrong; compare slices on both {NEXT_MOVE}"
        )
    most = max(line.agreeing for line in lines)
    if most < min(ENOUGH_ROWS, n_rows) / 2 or (2 * most < n_rows and not _is_seen_twice(lines)):
        out.append(
            f"only {most} of {n_rows} rows agree on the axis by themselves; use rows with more detail "
            f"{NEXT_MOVE}"
        )
    return out


def _is_seen_twice(lines: list[Line]) -> bool:
    """Whether a seam and the slices are sure of the same axis: then few rows need tell it by themselves."""
    sure = [line for line in _together(lines) if signal(line) == 1]
    return {line.method in SEAM_METHODS for line in sure} == {True, False}


def _geometry(
    center_px: float, *, sigma_px: float, slope: float, slope_sigma: float, rows: DoubleArray
) -> list[str]:
    out = []
    if sigma_px > UNCERTAIN_PX:
        out.append(
            f"the axis, {center_px:.2f} px, is uncertain by {sigma_px:.2f} px; use more rows with detail "
            f"{NEXT_MOVE}"
        )
    across_px = slope * float(np.ptp(rows))
    if is_sure_slope(slope, sigma=slope_sigma) and abs(across_px) > 0.5:
        out.append(
            f"the axis is tilted by {np.degrees(np.arctan(slope)):.3f} deg, it moves by {across_px:.2f} px "
            f"over rows {rows.min():.0f} to {rows.max():.0f}"
        )
    return out
