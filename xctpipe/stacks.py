"""Finished volumes of a run, found by the run folder or by their path, with what is known of them."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe import volume
from xctpipe.errors import BadRecipe, BadScan, nearest
from xctpipe.layout import VolumeSpec, grid
from xctpipe.pyramid import Shape
from xctpipe.runfolder import RUN_RECORD, read_json, scan_folder
from xctpipe.scan import FloatArray, Span
from xctpipe.status import ScanStatus, status

KINDS = ("edge", "mass")


@dataclass(frozen=True)
class Known:
    """What is known of a volume beside its values."""

    settings: Mapping[str, Any]
    """The recipe's settings that it depends on."""
    version: str = ""
    center_px: float | None = None
    noise_cm1: float | None = None
    resolution_um: float | None = None
    suggested_cm1: tuple[float, float] | None = None
    """Least and largest value of the slices that were assessed."""


@dataclass(frozen=True)
class Stack:
    """Slices in cm^-1 of one scan, wherever they are stored; None is what the files do not say."""

    scan: str
    path: Path
    shape: Shape
    dtype: str
    pixel_um: float | None
    first_row: int | None
    known: Known

    def read(self, z: Span) -> FloatArray:
        """Slices [z0, z1) counted from the first: (z, y, x), float32."""
        raise NotImplementedError

    @property
    def block_rows(self) -> int:
        """Slices that are best read together."""
        return 1


@dataclass(frozen=True)
class VolumeStack(Stack):
    """A volume that xctpipe reconstructed; `spec` is its layout, `kind` which one of the scan it is."""

    spec: VolumeSpec
    kind: str
    home: Path
    """The run folder, or where the volume is."""
    token: str
    """Of the attempt that made it."""

    def read(self, z: Span) -> FloatArray:
        """Slices [z0, z1) counted from the first: (z, y, x), float32."""
        return volume.read(self.path, z=slice(*z))

    @property
    def block_rows(self) -> int:
        """Slices that are best read together."""
        return chunk_rows(self.spec, level=0)


def chunk_rows(spec: VolumeSpec, *, level: int) -> int:
    """Slices of a level that are stored together."""
    return grid(spec, level)[0][0]


def find(
    path: Path, *, kind: str | None = None, scans: Sequence[str] = ()
) -> tuple[list[VolumeStack], list[str]]:
    """Finished volumes at a path.

    Parameters
    ----------
    path : a run folder, or one volume (`*.ome.zarr`).
    kind : `edge` (when absent) or `mass`; only for a run folder.
    scans : names or globs of the scans wanted, all when empty; only for a run folder.

    Returns
    -------
    The volumes, and one line with the state of each scan that is not finished.

    Raises
    ------
    BadRecipe
        If there is no such volume, or no such scan.
    BadScan
        If a scan asked for by name is not finished, or none is.
    """
    if (path / RUN_RECORD).is_file():
        return _of_run(path, kind=_checked_kind(kind), scans=scans)
    stack = _one(path)
    for option, value in (("--volume", kind), ("--scan", ", ".join(scans))):
        if value:
            raise BadRecipe(f"{option} {value}: is for run folders; {path} is one volume already")
    return [stack], []


def _checked_kind(kind: str | None) -> str:
    if kind is not None and kind not in KINDS:
        raise BadRecipe(f"--volume {kind}: no such volume; {nearest(kind, KINDS)}")
    return kind or KINDS[0]


def _of_run(root: Path, *, kind: str, scans: Sequence[str]) -> tuple[list[VolumeStack], list[str]]:
    finished, unfinished = _finished(root, scans)
    return [_in_run(root, name, kind) for name in finished], unfinished


def _finished(root: Path, scans: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the finished scans among those wanted, and a line for each of the others."""
    states = {each.name: each for each in status(root) if each.of_scan}
    names = list(states)
    if scans:
        names = list(dict.fromkeys(name for pattern in scans for name in _matching(pattern, states)))
    finished = [name for name in names if states[name].state == "done"]
    unfinished = [_in_words(states[name]) for name in names if name not in finished]
    if unfinished and (scans or not finished):
        raise BadScan(f"not finished: {'; '.join(unfinished)}. Repeat `xctpipe run` first")
    if not finished:
        raise BadScan(f"{root}: the run has no scans; see {root / 'recipe.toml'}")
    return finished, unfinished


def _matching(pattern: str, known: Mapping[str, Any]) -> list[str]:
    chosen = [name for name in known if name == pattern or fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        raise BadRecipe(f"--scan {pattern}: the run has no such scan; {nearest(pattern, known)}")
    return chosen


def _in_words(each: ScanStatus) -> str:
    slabs = f", {each.slabs_done} of {each.slabs} slabs" if each.slabs is not None else ""
    return f"{each.name} ({each.state}{slabs})"


def _in_run(root: Path, name: str, kind: str) -> VolumeStack:
    folder = scan_folder(root, name)
    path = folder.root / f"{kind}.ome.zarr"
    if not path.is_dir():
        why = "made only with [phase] in the recipe" if kind == "mass" else "moved or deleted?"
        raise BadRecipe(f"{path}: {name} has no volume {kind!r} ({why})")
    entry = (read_json(root / RUN_RECORD) or {})["scans"].get(name, {})
    state = read_json(folder.state) or {}
    assessed = {KINDS[0]: entry.get("assessment")} | (state.get("assessment") or {})
    return _stack(path, scan=name, home=root, assessed=assessed, token=state.get("token", ""))


def _one(path: Path) -> VolumeStack:
    """A volume given by its path; that of an unfinished scan is refused."""
    if not path.exists():
        raise BadRecipe(f"{path}: no such file or folder; give a run folder, or a volume (*.ome.zarr)")
    try:
        volume.read_spec(path)
    except BadRecipe as err:
        raise BadRecipe(_not_a_result(path)) from err
    root = path.absolute().parent.parent.parent
    name = path.absolute().parent.name
    if (root / RUN_RECORD).is_file() and name in {each.name for each in status(root) if each.of_scan}:
        _finished(root, [name])
        return _in_run(root, name, path.name.split(".", 1)[0])
    return _stack(path, scan="", home=path.absolute().parent, assessed={}, token="")


def _not_a_result(path: Path) -> str:
    text = f"{path}: neither a run folder (no {RUN_RECORD}) nor a volume of xctpipe"
    if path.suffix == ".toml":
        return f"{text}; give the run_folder that this recipe names"
    root = next((p for p in path.absolute().parents if (p / RUN_RECORD).is_file()), None)
    if root is not None:
        return f"{text}; the run folder is {root}"
    inside = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
    if inside:
        return f"{text}; it holds {', '.join(inside[:4])}: give one of them where they are exports of a scan"
    return f"{text}; give the recipe's run_folder, or a volume (*.ome.zarr)"


def _stack(path: Path, *, scan: str, home: Path, assessed: Mapping[str, Any], token: str) -> VolumeStack:
    spec, attributes = volume.read_spec(path), volume.read_attributes(path)
    kind = path.name.split(".", 1)[0]
    return VolumeStack(
        scan=scan or str(attributes.get("scan") or kind),
        path=path,
        shape=spec.shape,
        dtype=spec.dtype,
        pixel_um=spec.pixel_um,
        first_row=spec.first_row,
        known=_known(attributes, assessed.get(kind) or {}),
        spec=spec,
        kind=kind,
        home=home,
        token=token,
    )


def _known(attributes: Mapping[str, Any], found: Mapping[str, Any]) -> Known:
    lowest, highest = found.get("min_cm1"), found.get("max_cm1")
    return Known(
        settings=attributes.get("recipe") or {},
        version=str(attributes.get("version", "")),
        center_px=attributes.get("center_px"),
        noise_cm1=found.get("noise_cm1"),
        resolution_um=found.get("resolution_um"),
        suggested_cm1=None if lowest is None or highest is None else (lowest, highest),
    )
