"""Two reconstructions of the same scans side by side: what differs in numbers, in settings, in a picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan
from xctpipe.machine import usable_cpus, usable_memory_bytes
from xctpipe.pairs import Pair
from xctpipe.progress import progress
from xctpipe.runfolder import differences
from xctpipe.scan import DoubleArray, FloatArray, Span
from xctpipe.stacks import Known, Stack

NOISE_SIGMAS = 3.0
"""A voxel that differs by more than this many noise sigmas counts as changed."""
PERCENTS = (0.5, 50.0, 99.5)

_MOST_SAMPLES = 2_000_000
_MOST_ROWS = 64
_MEMORY_FRAC = 0.1


@dataclass(frozen=True)
class Side:
    """What is compared: a stack and its own numbers, over the voxels compared."""

    path: str
    shape: tuple[int, int, int]
    dtype: str
    pixel_um: float | None
    first_row: int | None
    center_px: float | None
    noise_cm1: float | None
    resolution_um: float | None
    mean_cm1: float
    std_cm1: float
    percentiles_cm1: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """How two volumes of a scan differ, as B - A in cm^-1, inside the circle that is reconstructed.

    `changed_frac` is the share of voxels that differ by more than `NOISE_SIGMAS` times A's noise, None
    where no noise is known; percentiles are those of `PERCENTS`, from every `sample_step`-th voxel.
    """

    scan: str
    rows: tuple[int, int]
    """Of A, counted from the detector's first row where that is known."""
    voxels: int
    not_finite: int
    a: Side
    b: Side
    identical: bool
    bias_cm1: float
    mean_ratio: float | None
    rms_cm1: float
    max_cm1: float
    correlation: float | None
    changed_frac: float | None
    difference_percentiles_cm1: tuple[float, ...]
    sample_step: int
    settings: tuple[str, ...]
    """Settings that differ, A -> B."""
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, with None for what is not finite."""
        table: dict[str, Any] = _plain(asdict(self))
        return {**table, "percents": list(PERCENTS), "noise_sigmas": NOISE_SIGMAS}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Sums:
    """Sums over voxels of one or more slices, and a sample of their values."""

    voxels: int
    not_finite: int
    same_bits: bool
    sums: DoubleArray
    """Of a, b, a^2, b^2, a b, (b - a)^2."""
    largest: float
    changed: int
    samples: tuple[FloatArray, ...]
    """Pieces of (2, n): a and b."""

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.voxels + other.voxels,
            self.not_finite + other.not_finite,
            self.same_bits and other.same_bits,
            self.sums + other.sums,
            max(self.largest, other.largest),
            self.changed + other.changed,
            self.samples + other.samples,
        )


def _slice_sums(
    a: FloatArray, b: FloatArray, *, inside: NDArray[np.bool_], limit_cm1: float, sample: slice
) -> _Sums:
    same = bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))
    in_a, in_b = a[inside].astype(np.float64), b[inside].astype(np.float64)
    finite = np.isfinite(in_a) & np.isfinite(in_b)
    bad = int(finite.size - np.count_nonzero(finite))
    if bad:
        in_a, in_b = in_a[finite], in_b[finite]
    difference = in_b - in_a
    pairs = ((in_a, in_a), (in_b, in_b), (in_a, in_b), (difference, difference))
    sums = [in_a.sum(), in_b.sum(), *((one * other).sum() for one, other in pairs)]
    np.abs(difference, out=difference)
    return _Sums(
        voxels=in_a.size,
        not_finite=bad,
        same_bits=same,
        sums=np.array(sums),
        largest=float(difference.max(initial=0.0)),
        changed=int(np.count_nonzero(difference > limit_cm1)),
        samples=(np.stack([in_a[sample], in_b[sample]]).astype(np.float32),),
    )


def compare(pair: Pair) -> Comparison:
    """Compare two stacks over their common rows, a few slices at a time.

    The numbers do not depend on the number of threads or on how many slices are read at once.
    """
    _, height, width = pair.a.shape
    n_rows = pair.z_a[1] - pair.z_a[0]
    inside = inside_circle(height, width)
    step = max(1, n_rows * int(inside.sum()) // _MOST_SAMPLES) | 1
    noise = pair.a.known.noise_cm1 or pair.b.known.noise_cm1
    limit = NOISE_SIGMAS * noise if noise else math.inf
    parts: list[_Sums] = []
    with ThreadPoolExecutor(_threads(height * width)) as pool, progress(pair.scan, total=n_rows) as bar:
        for z in _blocks(pair, n_rows):
            a, b = pair.read(z)
            jobs = [
                pool.submit(
                    _slice_sums,
                    *images,
                    inside=inside,
                    limit_cm1=limit,
                    sample=slice((z[0] + i) * 7 % step, None, step),
                )
                for i, images in enumerate(zip(a, b, strict=True))
            ]
            parts += [job.result() for job in jobs]
            bar.advance(z[1] - z[0])
    return _summary(pair, parts, step=step, noise_known=noise is not None)


def _threads(voxels: int) -> int:
    """As many as there are CPUs, while their working memory (six arrays of a slice) stays small."""
    return max(1, min(usable_cpus(), int(_MEMORY_FRAC * usable_memory_bytes()) // (48 * voxels)))


def inside_circle(height: int, width: int) -> NDArray[np.bool_]:
    """Voxels of a slice that are reconstructed: the inscribed circle, (y, x); everything if not square."""
    if height != width:
        return np.ones((height, width), np.bool_)
    offset = np.arange(width) - (width - 1) / 2
    return np.asarray(offset[:, None] ** 2 + offset**2 <= (width / 2) ** 2)


def _blocks(pair: Pair, n_rows: int) -> Iterator[Span]:
    _, height, width = pair.a.shape
    most = int(_MEMORY_FRAC * usable_memory_bytes()) // (16 * height * width)
    step = max(1, min(most, max(pair.a.block_rows, pair.b.block_rows, 8), _MOST_ROWS))
    # cut where the chunks of A end: one that is cut in two is decoded twice
    first = step - pair.z_a[0] % step
    edges = [0, *range(first, n_rows, step), n_rows]
    yield from pairwise(edges)


def _summary(pair: Pair, parts: Sequence[_Sums], *, step: int, noise_known: bool) -> Comparison:
    total = reduce(_Sums.__add__, parts)
    if not total.voxels:
        raise BadScan(f"{pair.scan}: nothing to compare: no voxel is finite in both")
    mean_a, mean_b, aa, bb, ab, dd = total.sums / total.voxels
    std_a, std_b = (math.sqrt(max(square - mean**2, 0.0)) for square, mean in ((aa, mean_a), (bb, mean_b)))
    sample = np.concatenate(total.samples, axis=1).astype(np.float64)
    return Comparison(
        scan=pair.scan,
        rows=pair.rows,
        voxels=total.voxels,
        not_finite=total.not_finite,
        a=_side(pair.a, mean_a, std_a, sample[0]),
        b=_side(pair.b, mean_b, std_b, sample[1]),
        identical=total.same_bits,
        bias_cm1=float(mean_b - mean_a),
        mean_ratio=float(mean_b / mean_a) if mean_a else None,
        rms_cm1=math.sqrt(dd),
        max_cm1=total.largest,
        correlation=float((ab - mean_a * mean_b) / (std_a * std_b)) if std_a and std_b else None,
        changed_frac=total.changed / total.voxels if noise_known else None,
        difference_percentiles_cm1=_percentiles(sample[1] - sample[0]),
        sample_step=step,
        settings=tuple(_different_settings(pair.a.known, pair.b.known)),
        notes=tuple(_notes(pair, total)),
    )


def _percentiles(values: DoubleArray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values, PERCENTS))


def _side(stack: Stack, mean: float, std: float, sample: DoubleArray) -> Side:
    known = stack.known
    return Side(
        path=str(stack.path),
        shape=stack.shape,
        dtype=stack.dtype,
        pixel_um=stack.pixel_um,
        first_row=stack.first_row,
        center_px=known.center_px,
        noise_cm1=known.noise_cm1,
        resolution_um=known.resolution_um,
        mean_cm1=float(mean),
        std_cm1=float(std),
        percentiles_cm1=_percentiles(sample),
    )


def _different_settings(a: Known, b: Known) -> list[str]:
    if not a.settings or not b.settings:
        return []
    lines = differences(*(_by_step(settings) for settings in (a.settings, b.settings)))
    orders = [[str(step.get("do")) for step in side.settings.get("correct") or []] for side in (a, b)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        lines.append(f"order of correct: {', '.join(orders[0])} -> {', '.join(orders[1])}")
    if a.version != b.version:
        lines.append(f"xctpipe: {a.version} -> {b.version}")
    return lines


def _by_step(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the chain of corrections by name, so that one step more is one difference."""
    steps: dict[str, Any] = {}
    for step in settings.get("correct") or []:
        name = str(step.get("do"))
        times = 1 + sum(key.split(" ")[0] == name for key in steps)
        steps[name if times == 1 else f"{name} ({times})"] = {k: v for k, v in step.items() if k != "do"}
    return {**settings, "correct": steps}


def _notes(pair: Pair, total: _Sums) -> Iterator[str]:
    a, b = pair.a, pair.b
    for what, stack in (("A", a), ("B", b)):
        if not stack.known.settings:
            yield f"{what} says nothing of the settings it was made with"
        if stack.pixel_um is None:
            yield f"{what} says neither voxel size nor unit: its values are taken to be in cm^-1"
    if a.pixel_um and b.pixel_um and not math.isclose(a.pixel_um, b.pixel_um, rel_tol=1e-6):
        yield f"voxels of {a.pixel_um:g} and {b.pixel_um:g} um: the same voxel is not at the same place"
    if a.first_row is None or b.first_row is None:
        yield "the first row of one is not known: compared slice by slice from the first"
    elif (a.shape[0], a.first_row) != (b.shape[0], b.first_row):
        yield f"the volumes cover different rows: compared are {pair.rows[0]}:{pair.rows[1]}"
    if total.not_finite:
        yield f"{total.not_finite} voxels are not finite and left out"
