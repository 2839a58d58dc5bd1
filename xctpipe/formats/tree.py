"""What an HDF5 file holds under all its names, without opening the files it links to."""

from collections.abc import Iterator
from dataclasses import dataclass

import h5py

from xctpipe.formats.hdf5 import follow

MOST_LEVELS = 8
MOST_LEAVES = 20_000

Identity = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """A dataset under one of its names; `shape` is None where it lies in another file."""

    key: str
    identity: Identity
    shape: tuple[int, ...] | None
    kind: str

    @property
    def group(self) -> str:
        """Key of the group that holds it."""
        return self.key.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def n(self) -> int | None:
        """Number of values of a list, of frames of a stack; None where it is not known."""
        if self.shape is None:
            return None
        return self.shape[0] if self.shape else 1

    @property
    def is_stack(self) -> bool:
        """Whether it is a stack of frames, or may be one in another file."""
        if self.shape is None:
            return self.name not in {"image_key", "image_key_control", "rotation_angle"}
        return len(self.shape) == 3 and 0 not in self.shape and self.kind in "iuf"


def leaves(file: h5py.File) -> list[Leaf]:
    """Datasets of a file and links to those of other files, in the order of the file."""
    found: list[Leaf] = []
    for leaf in _walk(file, file["/"], "", frozenset()):
        found.append(leaf)
        if len(found) >= MOST_LEAVES:
            break
    return found


def _walk(file: h5py.File, group: h5py.Group, path: str, above: frozenset[int]) -> Iterator[Leaf]:
    address = _address(group)
    # hard and soft links may lead back up
    if address in above or path.count("/") >= MOST_LEVELS:
        return
    for name in group:
        key = f"{path}/{name}".lstrip("/")
        end = follow(file, key)
        if end is None:
            continue
        if end.path:
            yield Leaf(key, (end.path, end.key), None, "")
            continue
        item = file.get(end.key)
        if isinstance(item, h5py.Group):
            yield from _walk(file, item, key, above | {address})
        elif isinstance(item, h5py.Dataset):
            yield Leaf(key, (_address(item),), item.shape, item.dtype.kind)


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def distance(one: str, other: str) -> int:
    """How far apart two groups are: 0 same, 1 parent, child or siblings, 2 in one entry, 3 not."""
    if one == other:
        return 0
    above = (one.rpartition("/")[0], other.rpartition("/")[0])
    if one == above[1] or other == above[0] or above[0] == above[1]:
        return 1
    return 2 if one.split("/")[0] == other.split("/")[0] else 3
