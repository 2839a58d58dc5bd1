"""Entries of NeXus files: which frames and image keys belong together, and the numbers beside them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import NO_OPTIONS, RawOptions
from xctpipe.formats.hdf5 import locate, open_hdf, read_array, read_number, read_text
from xctpipe.formats.tree import Identity, Leaf, distance, leaves
from xctpipe.formats.units import duration_s, energy_kev, length_um, parse_time
from xctpipe.formats.writing import growing

ENERGY_KEYS = (
    "instrument/beam/incident_energy",
    "instrument/beam/energy",
    "beam/incident_energy",
    "beam/energy",
    "instrument/monochromator/energy",
)
"""Where the photon energy may be; the energy of `instrument/source` is that of the storage ring."""
IMAGE_KEYS = ("image_key_control", "image_key")
"""Names of the list that tells projections, flats and darks apart; the first that is there counts."""

Notes = tuple[str, ...]


class Unclear(BadScan):
    """There are frames and image keys, and nothing tells which belong together."""


@dataclass(frozen=True)
class Entry:
    """Frames with image keys: their entry, the group that holds them, their key, the group of the keys."""

    group: str
    detector: str
    data: str
    keys: str
    notes: Notes = ()

    @property
    def camera(self) -> str:
        """Name of the group that holds the frames."""
        return self.detector.rpartition("/")[2]


@dataclass(frozen=True)
class _Pair:
    rank: int
    stack: Leaf
    keys: Leaf

    @property
    def score(self) -> tuple[int, bool]:
        return self.rank, not _in_instrument(self.stack)


def entries_of(path: Path, *, options: RawOptions = NO_OPTIONS) -> list[Entry]:
    """Stacks of frames with the image keys nearest to them, in the order of the file.

    Raises
    ------
    BadScan
        When the file cannot be opened; Unclear when it has frames and image keys that cannot be paired.
    """
    with open_hdf(path) as file:
        held = leaves(file)
        keys = [
            leaf for group in dict.fromkeys(leaf.group for leaf in held) for leaf in _keys_in(held, group)
        ]
        stacks = [leaf for leaf in held if leaf.is_stack]
        if not keys or not stacks:
            return []
        best = _best_pairs(file, path, stacks, keys)
    found: list[Entry] = []
    for group in dict.fromkeys(_entry_of(pair.stack) for pair in best):
        found.extend(
            _entries(path, [pair for pair in best if _entry_of(pair.stack) == group], options=options)
        )
    return found


def _keys_in(held: Iterable[Leaf], group: str) -> list[Leaf]:
    here = {leaf.name: leaf for leaf in held if leaf.group == group and leaf.name in IMAGE_KEYS}
    return [here[name] for name in IMAGE_KEYS if name in here][:1]


def _in_instrument(leaf: Leaf) -> bool:
    return "instrument" in leaf.group.split("/")


def _entry_of(leaf: Leaf) -> str:
    parts = leaf.group.split("/")
    return "/".join(parts[: parts.index("instrument")]) if "instrument" in parts else parts[0]


def _best_pairs(file: h5py.File, path: Path, stacks: Sequence[Leaf], keys: Sequence[Leaf]) -> list[_Pair]:
    """For every stack, under its best name, the nearest image keys of the same number."""
    pairs = [
        _Pair(distance(stack.group, key.group), stack, key)
        for stack in stacks
        for key in keys
        if stack.n is None or key.n is None or stack.n == key.n
    ]
    if not pairs:
        raise Unclear(f"{path}: {_mismatch(stacks, keys)}{growing(path)}")
    best: dict[Identity, _Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.score):
        first = best.setdefault(pair.stack.identity, pair)
        if pair.score == first.score and not _same(file, pair.keys, first.keys):
            raise Unclear(
                f"{path}: {first.keys.key} and {pair.keys.key} differ and are equally near to the frames "
                f"{first.stack.key}; remove the one that is not theirs"
            )
    order = {leaf.identity: i for i, leaf in reversed(list(enumerate(stacks)))}
    return sorted(best.values(), key=lambda pair: order[pair.stack.identity])


def _same(file: h5py.File, one: Leaf, other: Leaf) -> bool:
    if one.identity == other.identity:
        return True
    if one.shape is None or other.shape is None:
        return False
    return bool(np.array_equal(file[one.key][()], file[other.key][()]))


def _mismatch(stacks: Sequence[Leaf], keys: Sequence[Leaf]) -> str:
    for stack in stacks:
        for key in keys:
            if key.group == stack.group:
                return f"{key.n} image keys for {stack.n} frames in {stack.group}"
    frames = ", ".join(f"{stack.key} ({stack.n})" for stack in stacks[:6])
    listed = ", ".join(f"{key.key} ({key.n})" for key in keys[:6])
    return f"no stack of frames has as many frames as there are image keys: {listed}; {frames}"


def _entries(path: Path, pairs: list[_Pair], *, options: RawOptions) -> list[Entry]:
    """Cameras of one entry; stacks farther from the image keys are left out, and said."""
    if len(pairs) > 1:
        pairs = [pair for pair in pairs if _has_frames(path, pair, options=options)] or pairs[:1]
    nearest_rank = min(pair.rank for pair in pairs)
    cameras = [pair for pair in pairs if pair.rank == nearest_rank]
    if any(_in_instrument(pair.stack) for pair in cameras):
        cameras = [
            pair for pair in pairs if pair in cameras or (pair.rank <= 1 and _in_instrument(pair.stack))
        ]
    others = ", ".join(pair.stack.key for pair in pairs if pair not in cameras)
    left_out = (f"{path.name}: other stacks of as many frames are left out: {others}",) if others else ()
    return [_entry(path, pair, left_out) for pair in cameras]


def _has_frames(path: Path, pair: _Pair, *, options: RawOptions) -> bool:
    """Whether a stack in another file is one, and as long as its image keys; True where that is missing."""
    if pair.stack.shape is not None:
        return True
    try:
        place = locate(path, pair.stack.key, options=options)
        if place is None:
            return False
        with open_hdf(place.path) as file:
            item = file[place.key]
            shape = item.shape if isinstance(item, h5py.Dataset) else None
    except BadScan:
        return True
    return shape is not None and len(shape) == 3 and pair.keys.n in {None, shape[0]}


def _entry(path: Path, pair: _Pair, notes: Notes) -> Entry:
    stack, keys = pair.stack, pair.keys
    if pair.rank:
        notes = (f"{path.name}: the image keys {keys.key} are taken for the frames {stack.key}", *notes)
    return Entry(_entry_of(stack), stack.group, stack.key, keys.group, notes)


def choose(path: Path, entries: Sequence[Entry], *, options: RawOptions) -> tuple[Entry, Notes]:
    """The entry to open, of several cameras the one that `options` name, and what is left out.

    Raises
    ------
    BadScan
        When several cameras took frames and none is named, or the one that is named is not there.
    """
    if not entries:
        raise BadScan(f"{path}: no frames with image keys")
    camera = options.camera
    names = list(dict.fromkeys(entry.camera for entry in entries))
    if camera is not None and camera not in names:
        raise BadScan(f"{path}: no camera {camera!r}; {nearest(camera, names)}")
    wanted = [entry for entry in entries if camera in {None, entry.camera}]
    entry = wanted[0]
    same = [other for other in wanted if other.group == entry.group]
    if len(same) > 1:
        listed = ", ".join(f"{other.camera} ({other.data})" for other in same)
        raise BadScan(
            f"{path}: {entry.group or '/'} holds frames of {len(same)} cameras: {listed}; "
            f'name one of them: raw.camera = "{same[0].camera}"'
        )
    notes = entry.notes
    others = list(dict.fromkeys(other.group for other in wanted[1:]))
    if others:
        text = f"{entry.group} is used, {', '.join(others)} left out"
        notes += (f"{path.name} holds {len(others) + 1} entries: {text}",)
    return entry, notes


def angle_keys(path: Path, entry: Entry, *, counts: set[int]) -> tuple[list[str], Notes]:
    """Keys where the angles of an entry may be, the likeliest first, and what there is to say of them.

    The places of NXtomo come first, whatever they hold; then lists named rotation_angle that have one of the
    `counts` of values, those nearest to the frames, if all of them agree.

    Raises
    ------
    BadScan
        When lists equally near to the frames differ.
    """
    usual = [f"{entry.group}/sample/rotation_angle", f"{entry.group}/data/rotation_angle"]
    usual = [key.lstrip("/") for key in usual]
    with open_hdf(path) as file:
        named = [leaf for leaf in leaves(file) if leaf.name == "rotation_angle"]
        there = [key for key in usual if any(leaf.key == key for leaf in named)]
        if there:
            return there, ()
        fitting = [leaf for leaf in named if leaf.n is None or leaf.n in counts]
        ranks = [min(distance(leaf.group, near) for near in (entry.detector, entry.keys)) for leaf in fitting]
        found = [leaf for leaf, rank in zip(fitting, ranks, strict=True) if rank == min(ranks)]
        for leaf in found[1:]:
            if not _same(file, leaf, found[0]):
                raise BadScan(
                    f"{path}: {found[0].key} and {leaf.key} differ and are equally near to the frames "
                    f"{entry.data}; remove the one that is not theirs"
                )
    if not found:
        return [], ()
    return [found[0].key], (f"{path.name}: the angles {found[0].key} are taken for the frames {entry.data}",)


def time_of(path: Path, entry: Entry, name: str, *, options: RawOptions) -> tuple[datetime | None, Notes]:
    """A time of an entry or of the entry that holds it, and what there is to say about it."""
    for group in dict.fromkeys((entry.group, entry.group.split("/")[0])):
        text = read_text(path, f"{group}/{name}", options=options)
        if text:
            return parse_time(text, what=f"{path.name}: {group}/{name}")
    return None, ()


def numbers_of(path: Path, entry: Entry, *, options: RawOptions) -> tuple[dict[str, float | None], Notes]:
    """Energy and pixel size at the sample of an entry as fields of `Scan`, and notes on units."""
    notes: Notes = ()

    def first(keys: Sequence[str], convert: Callable[..., tuple[float | None, Notes]]) -> float | None:
        nonlocal notes
        for key in keys:
            found = read_number(path, key, options=options)
            if found is not None:
                value, more = convert(*found, what=f"{path.name}: {key}")
                notes += more
                if value is not None:
                    return value
        return None

    pixel_um = first([f"{entry.group}/sample/x_pixel_size"], length_um)
    if pixel_um is None:
        pixel_um = first([f"{entry.detector}/x_pixel_size"], length_um)
        magnification = read_number(path, f"{entry.detector}/magnification", options=options)
        if pixel_um is not None and magnification is not None and magnification[0] > 0:
            pixel_um /= magnification[0]
    energy = first([f"{entry.group}/{key}" for key in ENERGY_KEYS], energy_kev)
    return {"pixel_um": pixel_um, "energy_kev": energy}, notes


def exposure_of_frames(
    path: Path, entry: Entry, used: NDArray[np.bool_], *, options: RawOptions
) -> tuple[float | None, Notes]:
    """Exposure of the frames marked in `used`, of which count_time has one value each or one for all: s."""
    key = f"{entry.detector}/count_time"
    found = read_array(path, key, options=options)
    if found is None or found[0].size == 0 or found[0].dtype.kind not in "iuf":
        return None, ()
    values = found[0].astype(np.float64).ravel()
    values = values[used] if values.size == used.size else values[:1]
    if not values.size:
        return None, ()
    return duration_s(float(np.median(values)), found[1], what=f"{path.name}: {key}")
