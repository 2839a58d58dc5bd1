"""What TIFF files are, told by words in their names and in those of their folders."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xctpipe.formats.tiff_frames import TIFF_SUFFIXES, natural, tiff_names

Role = Literal["proj", "flat", "dark", ""]

_BEGINNINGS: dict[Role, tuple[str, ...]] = {
    "dark": ("dark",),
    "flat": ("flat", "white", "bright", "openbeam"),
    "proj": ("proj", "tomo", "radio"),
}
_WORDS: dict[Role, frozenset[str]] = {
    "dark": frozenset({"df", "di", "dc", "drk", "bias", "offset"}),
    "flat": frozenset({"ff", "ref", "refs", "reference", "references", "open", "ob", "empty", "gain"}),
    "proj": frozenset({"data", "raw", "sample", "img", "image", "images", "frames", "tif", "tiff", "tiffs"}),
}
_BEFORE = {"before", "pre", "begin", "beginning", "start", "first", "initial"}
_AFTER = {"after", "post", "end", "final", "last"}


@dataclass(frozen=True)
class Group:
    """TIFF files of one role in one folder; `role` is empty where no name tells it."""

    role: Role
    label: str
    folder: Path
    names: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in order."""
        return tuple(self.folder / name for name in self.names)

    @property
    def first(self) -> Path:
        """The first file."""
        return self.folder / self.names[0]

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.label}: {len(self.names)} file(s){f', {self.role}' if self.role else ''}"


def role_of(name: str) -> Role:
    """Role told by the words of a name; darks and flats come before the data they belong to."""
    words = re.findall("[a-z]+", name.lower())
    found: list[Role] = [
        role
        for role in _WORDS
        if any(word in _WORDS[role] or word.startswith(_BEGINNINGS[role]) for word in words)
    ]
    if {"dark", "flat"} <= set(found):
        return ""
    return found[0] if found else ""


def _says_no_more(name: str) -> bool:
    """Whether a name tells flats or darks and nothing else: flats_before, but not flat_cell_7."""
    words = re.findall("[a-z]+", name.lower())
    plain = _BEFORE | _AFTER | {"field", "fields", "beam", "images", "frames"}
    return role_of(name) in {"flat", "dark"} and all(word in plain or role_of(word) for word in words)


def when_of(group: Group) -> int:
    """Whether flats or darks were taken before (-1) or after (1) the scan; 0 where the name says neither."""
    words = set(re.findall("[a-z]+", group.label.lower()))
    return -1 if words & _BEFORE else 1 if words & _AFTER else 0


def groups_in(folder: Path) -> list[Group]:
    """TIFF files in a folder and in sub-folders whose names tell a role; OSError if they cannot be listed."""
    files, role, below = tiff_names(folder), role_of(folder.name), groups_below(folder)
    roles = {kind: role_of(Path(kind).stem) or role for kind in _kinds(files)}
    # cameras call all frames alike, so a folder called flats holds flats; a sample may be called flat too
    if not below and len(set(roles.values())) == 1 and _says_no_more(folder.name):
        roles = dict.fromkeys(roles, role)
    own = _grouped(folder, files, roles)
    return [*own, *below]


def groups_below(folder: Path, *, but: Path | None = None) -> list[Group]:
    """TIFF files in the sub-folders whose names tell a role; of `but`, only flats and darks beside count."""
    found: list[Group] = []
    for child in others_in(folder)[0]:
        if child == but:
            continue
        role = role_of(child.name)
        if not role or (but is not None and role == "proj"):
            continue
        files = tiff_names(child)
        if role != "proj" and files:
            found.append(Group(role, child.name, child, tuple(files)))
            continue
        roles = {kind: role_of(Path(kind).stem) or role for kind in _kinds(files)}
        # where all are alike the folder decides: a sample may be called dark chocolate
        mixed = len(set(roles.values())) > 1
        found.extend(_grouped(child, files, roles if mixed else dict.fromkeys(roles, role)))
    return found


def others_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Sub-folders, and names of files that are not TIFF; hidden ones left out."""
    with os.scandir(folder) as found:
        shown = [each for each in found if not each.name.startswith(".")]
    others = [each for each in shown if not each.name.lower().endswith(TIFF_SUFFIXES)]
    folders = sorted((each.name for each in others if each.is_dir()), key=natural)
    return [folder / name for name in folders], [each.name for each in others if not each.is_dir()]


def _kind(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _kinds(files: Iterable[str]) -> dict[str, list[str]]:
    """Names of files by what they are without their numbers."""
    kinds: dict[str, list[str]] = {}
    for name in files:
        kinds.setdefault(_kind(name), []).append(name)
    return kinds


def _grouped(folder: Path, files: Sequence[str], roles: Mapping[str, Role]) -> list[Group]:
    """Groups by role and moment; files of no role by what they are called."""
    merged: dict[tuple[Role, str], list[str]] = {}
    for kind, names in _kinds(files).items():
        role = roles[kind]
        key = "" if role == "proj" else _moment(kind) if role else kind
        merged.setdefault((role, key), []).extend(names)
    return [
        Group(role, _label(folder, names), folder, tuple(sorted(names, key=natural)))
        for (role, _), names in merged.items()
    ]


def _moment(kind: str) -> str:
    words = set(re.findall("[a-z]+", kind.lower()))
    return "before" if words & _BEFORE else "after" if words & _AFTER else ""


def _label(folder: Path, names: Iterable[str]) -> str:
    kinds = sorted({_kind(name) for name in names})
    return f"{folder.name}/{', '.join(kinds[:3])}"
