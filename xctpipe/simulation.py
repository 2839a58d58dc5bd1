"""A simulated series on disk: raw scans in any layout, the truth, the cycler's file and a recipe for them.

Darks and flats are taken before the first scan and after the last one, none in between; folders of their own
are numbered after all scans of the series, written or not. A scan that is complete is kept when the command
is repeated after an interruption; one that is not, or that has lost a file, is made anew, to the same bytes.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import __version__, formats
from xctpipe.errors import BadRecipe, nearest
from xctpipe.formats.hex2 import METADATA
from xctpipe.machine import set_threads
from xctpipe.phantom.acquisition import Acquisition, with_changes
from xctpipe.phantom.scanner import FrameKind, SimulatedFrames
from xctpipe.phantom.series import Series, TimeStep, scan_of
from xctpipe.progress import Bar, progress
from xctpipe.runfolder import read_json, write_json
from xctpipe.scan import DarkFlat, Frames, RawArray, Scan, Span
from xctpipe.storage import storing

FLATS_GAP_S = 120.0
"""Between the flats and the first scan, and between the last scan and the flats."""

RECORD, UNFINISHED, RAW = "simulation.json", "unfinished", "raw_data"

# of the folder of a series, besides its hidden files
_OURS = frozenset(
    {RECORD, UNFINISHED, RAW, "truth", "truth.json", "cycler.csv", "cycler.mpt", "recipe.toml"}
    | {"contact_sheet.png"}
)

_LEAST_CHUNK, _CHUNK_BYTES = 4, 2**23
_MOST_PHOTONS = 1e12

# these write darks and flats as runs of their own beside the scan; the others hold them in each scan
_FLATS_BESIDE = frozenset({"hex0", "hex1", "hex2", "hex3"})


# where layouts look for names that are taken
_PLACES = (Path(), METADATA)


def flats_are_beside(layout: str) -> bool:
    """Whether a layout writes darks and flats beside the scans, and not into each."""
    return layout in _FLATS_BESIDE


def photons_of(wanted: float) -> float | None:
    """Photons of a simulation for the option `--photons`; None, without noise, for 0.

    Raises
    ------
    BadRecipe : so many are not possible.
    """
    if wanted and not 1 <= wanted <= _MOST_PHOTONS:
        raise BadRecipe(f"--photons {wanted:.10g}: give 1 to {_MOST_PHOTONS:g}, or 0 for no noise")
    return wanted or None


def scan_name(index: int) -> str:
    """Name of a time step's scan: scan_00001 is the first."""
    return f"scan_{index + 1:05d}"


def flat_times_s(series: Series) -> tuple[float, float]:
    """When the flats before and after the series are taken, as POSIX times."""
    last = series.steps[-1]
    return series.steps[0].time_s - FLATS_GAP_S, last.time_s + _duration_s(last) + FLATS_GAP_S


def _duration_s(step: TimeStep) -> float:
    return step.acquisition.n_angles * step.acquisition.exposure_s


def acquisition_of(series: Series, index: int) -> Acquisition:
    """Acquisition of a scan with the instrument of the series and the beam of its hour.

    The beam drifts from the flats before the series to those after it, of which each scan sees its part.
    """
    step, (before_s, after_s) = series.steps[index], flat_times_s(series)
    start = (step.time_s - before_s) / (after_s - before_s)
    end = (step.time_s + _duration_s(step) - before_s) / (after_s - before_s)
    return with_changes(step.acquisition, beam_from_frac=start, beam_to_frac=end, instrument_seed=series.seed)


def scan_in_series(series: Series, index: int) -> Scan:
    """One scan of a series, without darks and flats, at its time."""
    step = replace(series.steps[index], acquisition=acquisition_of(series, index))
    return replace(scan_of(step, seed=series.seed), name=scan_name(index), dark_flats=())


def dark_flats(series: Series) -> tuple[DarkFlat, DarkFlat]:
    """Darks and flats taken before and after the series."""
    step = series.steps[0]
    acquisition = acquisition_of(series, 0)

    def frames(kind: FrameKind) -> SimulatedFrames:
        return SimulatedFrames(step.sample, acquisition, kind, series.seed)

    before_s, after_s = flat_times_s(series)
    darks = (frames("dark_before"), frames("dark_after")) if acquisition.n_darks else (None, None)
    return (
        DarkFlat(darks[0], frames("flat_before"), before_s, "before"),
        DarkFlat(darks[1], frames("flat_after"), after_s, "after"),
    )


def scans_of(series: Series, *, layout: str, scans: Span | None = None) -> dict[int, Scan]:
    """Scans to write by index, with the darks and flats that the layout writes with them.

    Raises
    ------
    BadRecipe : no such layout or scans.
    """
    known = formats.layouts()
    if layout not in known:
        raise BadRecipe(f"no raw layout {layout!r}; {nearest(layout, known)}")
    first, last = scans or (0, len(series.steps))
    if last > len(series.steps):
        raise BadRecipe(
            f"--scans {first}:{last}: the series {series.kind} has {len(series.steps)}, 0:{len(series.steps)}"
        )
    sets = dark_flats(series)
    found = {i: scan_in_series(series, i) for i in range(first, last)}
    for i, scan in found.items():
        if not flats_are_beside(layout) or i == last - 1:
            found[i] = replace(scan, dark_flats=sets)
    return found


def write_series(
    folder: Path,
    series: Series,
    *,
    layout: str,
    scans: Span | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write the raw scans of a series into a new folder, or go on where an interrupted call stopped.

    Frames are computed a block ahead of the disk; memory holds a few frames for each thread.

    Parameters
    ----------
    scans : which time steps, the first is 0; absent: all.
    options : by which the series was made, to say what differs from another one that is in the folder.

    Returns
    -------
    The folder of raw data, as `xctpipe inspect` takes it.

    Raises
    ------
    BadRecipe : the folder holds something else, the disk is too small, or no such layout or scans.
    """
    wanted = scans_of(series, layout=layout, scans=scans)
    settings = _settings(series, layout=layout, scans=scans, options=options or {})
    finished = _begun(folder, settings)
    missing = {i: scan for i, scan in wanted.items() if scan_name(i) not in finished}
    names = [scan_name(i) for i in range(len(series.steps))]
    need = sum(_bytes_of(scan) for scan in missing.values())
    _check_room(folder, need, n_scans=len(missing))
    n_frames = sum(count_frames(scan) for scan in missing.values())
    with storing(folder, needed_bytes=need):
        _make_folder(folder)
        write_json(folder / RECORD, {**settings, "finished": finished})
        with progress("simulating", total=n_frames, unit="frames") as bar:
            for i, scan in missing.items():
                finished[scan_name(i)] = _write_one(folder, scan, layout=layout, bar=bar, names=names)
                write_json(folder / RECORD, {**settings, "finished": finished})
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return folder / RAW


def _settings(
    series: Series, *, layout: str, scans: Span | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    first, last = scans or (0, len(series.steps))
    return {
        "made_by": f"xctpipe {__version__}",
        "options": {
            "--series": series.kind,
            "--size": series.size,
            "--seed": series.seed,
            "--layout": layout,
            "--scans": f"{first}:{last}",
            **options,
        },
        # everything: geometry, acquisition, times, and where it is written
        "digest": hashlib.sha256(repr((series, layout, first, last)).encode()).hexdigest()[:16],
    }


def _begun(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Scans that an earlier call finished and that are whole, with the sizes of their files.

    BadRecipe when the folder is for another series.
    """
    if folder.exists() and not folder.is_dir():
        raise BadRecipe(f"{folder}: is not a folder; choose another place")
    record = read_json(folder / RECORD)
    if record is None:
        if folder.exists() and any(child.name != UNFINISHED for child in folder.iterdir()):
            raise BadRecipe(f"{folder} is not empty; choose another folder")
        return {}
    if any(record.get(key) != settings[key] for key in ("made_by", "digest")):
        raise BadRecipe(
            f"{folder} holds another series ({_difference(record, settings)}); "
            "give the options of the command that began it, or choose another folder"
        )
    finished = record.get("finished", {})
    return {name: files for name, files in finished.items() if _is_whole(folder / RAW, files)}


def _difference(record: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    there, here = record.get("options", {}), settings["options"]
    found = [
        f"{name} {_shown(there.get(name))} there, {_shown(here.get(name))} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if record.get("made_by") != settings["made_by"]:
        found.append(f"made by {record.get('made_by')}, this is {settings['made_by']}")
    return "; ".join(found) or "the same options gave another cell: it was made by an older program"


def _shown(value: Any) -> str:
    return "as its size says" if value is None else f"{value}"


def _is_whole(raw: Path, files: Mapping[str, int]) -> bool:
    def there(name: str, size: int) -> bool:
        path = raw / name
        return path.is_file() and path.stat().st_size == size

    return all(there(name, size) for name, size in files.items())


def _make_folder(folder: Path) -> None:
    try:
        (folder / RAW).mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise BadRecipe(f"{folder}: no folder can be made there; choose another place") from err


def _stacks(scan: Scan) -> list[Any]:
    sets = [stack for item in scan.dark_flats for stack in (item.darks, item.flats) if stack is not None]
    return [scan.frames, *sets]


def count_frames(scan: Scan) -> int:
    """Number of all frames, darks and flats too."""
    return sum(int(stack.shape[0]) for stack in _stacks(scan))


def _bytes_of(scan: Scan) -> int:
    return sum(int(np.prod(stack.shape)) * stack.dtype.itemsize for stack in _stacks(scan))


def _check_room(folder: Path, need: int, *, n_scans: int) -> None:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    # the picture, tables and headers are small beside the frames
    whole = need * 1.01 + 2**22
    if n_scans and whole > free:
        raise BadRecipe(
            f"{folder}: {n_scans} scan(s) need {whole / 1e9:.4g} GB with their tables and picture, "
            f"{free / 1e9:.4g} GB are free on that disk; choose another folder, or fewer scans (--scans), "
            "rows (--rows) or angles (--angles)"
        )


def _write_one(folder: Path, scan: Scan, *, layout: str, bar: Bar, names: Sequence[str]) -> dict[str, int]:
    """Write a scan apart, then move its files to the others: what is in the raw folder is whole.

    `names` are those of all scans, which darks and flats must not take. Returns the files with their sizes.
    """
    apart = folder / UNFINISHED
    shutil.rmtree(apart, ignore_errors=True)
    for place in _PLACES:
        for name in set(names) - {scan.name}:
            (apart / place / name).mkdir(parents=True)
    with streamed(scan, bar=bar) as stream:
        formats.write_scan(apart / scan.name, stream, layout=layout)
    sizes = {}
    # files one by one: layouts that spread a scan over a tree share its folders
    for path in sorted(each for each in apart.rglob("*") if not each.is_dir()):
        target = folder / RAW / path.relative_to(apart)
        target.parent.mkdir(parents=True, exist_ok=True)
        sizes[path.relative_to(apart).as_posix()] = path.stat().st_size
        path.replace(target)
    return sizes


@contextmanager
def streamed(scan: Scan, *, bar: Bar) -> Iterator[Scan]:
    """The scan with all its frames computed ahead of their writer and counted."""
    with ahead(bar) as stream:
        yield replace(
            scan,
            frames=stream(scan.frames),
            dark_flats=tuple(
                replace(item, darks=stream(item.darks) if item.darks else None, flats=stream(item.flats))
                for item in scan.dark_flats
            ),
        )


@dataclass(frozen=True, eq=False)
class _Streamed:
    """Frames for a writer that takes them in order; the next ones are computed while some are written."""

    source: Frames
    pool: ThreadPoolExecutor
    bar: Bar
    coming: dict[int, "Future[RawArray]"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.source.dtype

    @property
    def numbers(self) -> Sequence[int]:
        """Which frame of the scan each is; those between are lost."""
        numbers: Sequence[int] = getattr(self.source, "numbers", range(self.shape[0]))
        return numbers

    @property
    def _chunk(self) -> int:
        """Frames computed in one call, which costs something whatever their number."""
        _, rows, cols = self.shape
        return max(_LEAST_CHUNK, _CHUNK_BYTES // (rows * cols * self.dtype.itemsize))

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows of frames [f0, f1); those before f0 are not kept."""
        first, last, _ = slice(*(frames or (None,))).indices(self.shape[0])
        n, parts = self._chunk, []
        for k in range(first // n, -(-last // n)):
            part = self._begin(k).result()
            if (k + 1) * n < self.shape[0]:
                self._begin(k + 1)
            parts.append(part[max(first - k * n, 0) : last - k * n])
        for k in [k for k in self.coming if (k + 1) * n <= last]:
            del self.coming[k]
        self.bar.advance(max(last - first, 0))
        out = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return out if rows is None else out[:, slice(*rows)]

    def _begin(self, k: int) -> "Future[RawArray]":
        if k not in self.coming:
            span = (k * self._chunk, (k + 1) * self._chunk)
            self.coming[k] = self.pool.submit(self.source.read, frames=span)
        return self.coming[k]


@contextmanager
def ahead(bar: Bar) -> Iterator[Callable[[Frames], Frames]]:
    """Maker of frames that are computed ahead of their writer, by all usable processors."""
    # one call at a time, which has threads of its own
    pool = ThreadPoolExecutor(1, thread_name_prefix="simulate", initializer=set_threads)
    try:
        yield lambda source: _Streamed(source, pool, bar, {})
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
