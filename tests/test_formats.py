"""Raw layouts: every one is written and read back, and every broken file is refused with its cause."""

import contextlib
import math
import os
import pickle
import shutil
import tracemalloc
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xctpipe.errors import BadScan
from xctpipe.formats import (
    Found,
    RawOptions,
    describe,
    find_scans,
    layouts,
    nearest_dark_flats,
    open_scan,
    write_scan,
)
from xctpipe.formats import units as raw_units
from xctpipe.formats.angles import angle_notes, match_angles, range_text, to_radians
from xctpipe.formats.frames import HdfFrames, clip_runs, open_frames, runs_of
from xctpipe.formats.hdf5 import datasets, read_array
from xctpipe.formats.hex1 import write_dark_flat
from xctpipe.scan import ArrayFrames, DarkFlat, Frames, Scan

LAYOUTS = sorted(layouts())
HDF5_LAYOUTS = [name for name in LAYOUTS if name != "tiff"]
START = datetime(2025, 3, 1, 10, 0, 0, 250000, tzinfo=timezone(timedelta(hours=-5)))


def stack(
    n: int, *, rows: int = 5, cols: int = 12, low: int = 1000, high: int = 2000, seed: int = 0
) -> ArrayFrames:
    rng = np.random.default_rng(seed)
    return ArrayFrames(rng.integers(low, high, (n, rows, cols), dtype=np.uint16))


def dark_flat(*, seconds: float = -60, seed: int = 1, **shape: int) -> DarkFlat:
    darks = stack(2, low=90, high=110, seed=seed, **shape)
    flats = stack(3, low=3000, high=3100, seed=seed + 1, **shape)
    return DarkFlat(darks, flats, START.timestamp() + seconds)


def a_scan(n: int = 30, **changes: Any) -> Scan:
    # the measured angles of a fly scan are not equally spaced
    jitter = np.random.default_rng(7).uniform(-1e-4, 1e-4, n)
    values: dict[str, Any] = {
        "name": "scan_00010",
        "layout": "memory",
        "path": Path("none"),
        "frames": stack(n),
        "angles_rad": np.radians(0.035 + np.arange(n) * 180 / n) + jitter,
        "dark_flats": (dark_flat(),),
        "start_time": START,
        "exposure_s": 0.2,
        "energy_kev": 80.0,
        "pixel_um": 1.3,
    }
    return Scan(**{**values, **changes})


def hex_folder(root: Path, **changes: Any) -> Path:
    return write_scan(root / "raw_data" / "scan_00010", a_scan(**changes), layout="hex1")


def edit(path: Path, key: str, value: object, **attributes: object) -> None:
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value
            file[key].attrs.update(attributes)


def problems(path: Path, **options: Any) -> str:
    scan = open_scan(path, options=RawOptions(**options))
    return "\n".join(f"{p.level}: {p.text}" for p in scan.problems)


# --- every layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read_back(tmp_path: Path, layout: str) -> None:
    scan = a_scan(dark_flats=(dark_flat(seconds=-60), dark_flat(seconds=600, seed=5)))
    back = open_scan(write_scan(tmp_path / "raw" / "scan_00010", scan, layout=layout))
    assert back.name == scan.name
    assert back.layout == layout
    assert back.start_time == scan.start_time
    assert back.problems == ()
    np.testing.assert_array_equal(back.frames.read(), scan.frames.read())
    np.testing.assert_allclose(back.angles_rad, scan.angles_rad, rtol=1e-15, atol=1e-15)
    assert len(back.dark_flats) == 2
    for got, want in zip(back.dark_flats, scan.dark_flats, strict=True):
        assert got.time_s == pytest.approx(want.time_s, abs=1e-5)
        np.testing.assert_array_equal(got.flats.read(), want.flats.read())
        assert got.darks is not None
        assert want.darks is not None
        np.testing.assert_array_equal(got.darks.read(), want.darks.read())
    assert all(path.is_file() for path in back.files)
    if not layout.startswith("hex"):
        assert back.pixel_um == pytest.approx(1.3, rel=1e-12)
        assert back.energy_kev == pytest.approx(80, rel=1e-12)
        assert back.exposure_s == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_number_types_survive(tmp_path: Path, layout: str, dtype: type) -> None:
    frames = ArrayFrames(stack(20, high=1200).data.astype(dtype))
    flats = ArrayFrames(stack(2, high=1200).data.astype(dtype))
    scan = a_scan(20, frames=frames, dark_flats=(DarkFlat(None, flats),))
    back = open_scan(write_scan(tmp_path / "s_1", scan, layout=layout))
    assert back.frames.dtype == dtype
    np.testing.assert_array_equal(back.frames.read(), frames.data)
    assert back.dark_flats[0].darks is None
    assert any("no darks" in text for text in back.warnings)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_band_of_rows_and_frames_equals_the_same_cut_of_everything(
    tmp_path: Path, layout: str, data: st.DataObject
) -> None:
    made = tmp_path / "made.txt"
    if not made.exists():
        made.write_text(str(write_scan(tmp_path / "raw" / "s_1", a_scan(), layout=layout)))
    frames = open_scan(Path(made.read_text())).frames
    r0, r1 = sorted(data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
    f0, f1 = sorted(data.draw(st.tuples(st.integers(0, 30), st.integers(0, 30))))
    np.testing.assert_array_equal(frames.read((r0, r1), frames=(f0, f1)), frames.read()[f0:f1, r0:r1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_scan_travels_to_another_process_without_its_data(tmp_path: Path, layout: str) -> None:
    scan = open_scan(write_scan(tmp_path / "s_1", a_scan(), layout=layout))
    sent = pickle.dumps(scan)
    assert len(sent) < scan.frames.read().nbytes
    back = pickle.loads(sent)
    assert isinstance(back.frames, Frames)
    np.testing.assert_array_equal(back.frames.read((1, 3)), scan.frames.read((1, 3)))


@dataclass(frozen=True)
class Made:
    """Frames made on demand; refuses to make more than 32 MB at once."""

    shape: tuple[int, int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16)

    def read(self, rows: Any = None, *, frames: Any = None) -> Any:
        first, last = frames
        assert (last - first) * self.shape[1] * self.shape[2] * 2 <= 2**25
        numbers = np.arange(first, last, dtype=np.uint16)[:, None, None]
        return np.broadcast_to(numbers, (last - first, *self.shape[1:]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_writing_needs_memory_for_a_block_only(tmp_path: Path, layout: str) -> None:
    frames = Made((24, 2048, 1024))
    scan = a_scan(24, frames=frames, dark_flats=())
    tracemalloc.start()
    path = write_scan(tmp_path / "s_1", scan, layout=layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6 < 24 * 2048 * 1024 * 2
    back = open_scan(path, look_at_frames=False).frames
    assert [int(v) for v in back.read((2000, 2001))[:, 0, 7]] == list(range(24))


@pytest.mark.parametrize("layout", HDF5_LAYOUTS)
def test_frames_are_written_one_chunk_each_and_uncompressed(tmp_path: Path, layout: str) -> None:
    frames = open_scan(write_scan(tmp_path / "s_1", a_scan(), layout=layout)).frames
    assert isinstance(frames, HdfFrames)
    with h5py.File(frames.path) as file:
        assert file[frames.key].chunks == (1, 5, 12)
        assert file[frames.key].compression is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_existing_scan_is_never_overwritten(tmp_path: Path, layout: str) -> None:
    write_scan(tmp_path / "s_1", a_scan(), layout=layout)
    with pytest.raises(BadScan, match="exists already"):
        write_scan(tmp_path / "s_1", a_scan(), layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_no_to_what_it_does_not_know(tmp_path: Path, layout: str) -> None:
    (tmp_path / "text.h5").write_text("<html>")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    module = layouts()[layout]
    for path in (tmp_path, tmp_path / "text.h5", tmp_path / "other.h5", tmp_path / "absent", Path("\0")):
        assert module.understands(path) is False
        assert module.holds(path) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_darks_and_flats_come_from_another_layout_when_given(tmp_path: Path, layout: str) -> None:
    path = write_scan(tmp_path / "s_1", a_scan(dark_flats=()), layout=layout)
    late = write_dark_flat(tmp_path / "elsewhere" / "scan_00099", dark_flat(seconds=900, seed=9))
    early = write_scan(tmp_path / "elsewhere" / "early.h5", a_scan(), layout="dxchange")
    assert any("no flats" in text and "raw.dark_flat" in text for text in open_scan(path).errors)
    scan = open_scan(path, dark_flat=[late, early])
    assert scan.errors == ()
    assert [item.time_s for item in scan.dark_flats] == pytest.approx(
        [START.timestamp() - 60, START.timestamp() + 900], abs=1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_of_the_user_win(tmp_path: Path, layout: str) -> None:
    scan = a_scan(dark_flats=(), angles_rad=np.linspace(0, 0.2, 30))
    path = write_scan(tmp_path / "s_1", scan, layout=layout)
    later = START + timedelta(days=1)
    back = open_scan(path, options=RawOptions(log_absorption=True, angle_unit="rad", start_time=later))
    assert back.log_absorption
    assert back.errors == ()
    assert back.start_time == later
    np.testing.assert_allclose(back.angles_rad, np.degrees(scan.angles_rad), rtol=1e-12)


@pytest.mark.parametrize("layout", HDF5_LAYOUTS)
def test_a_truncated_file_is_named_with_its_size(tmp_path: Path, layout: str) -> None:
    frames = open_scan(write_scan(tmp_path / "s_1", a_scan(), layout=layout)).frames
    assert isinstance(frames, HdfFrames)
    whole = frames.path.read_bytes()
    frames.path.write_bytes(whole[: len(whole) // 2])
    for call in (lambda: open_scan(tmp_path / "s_1" if layout == "hex1" else frames.path), frames.read):
        with pytest.raises(BadScan, match=rf"truncated HDF5 file: {len(whole) // 2} of {len(whole)} bytes"):
            call()


@pytest.mark.parametrize("layout", LAYOUTS)
# the same examples each time: the HDF5 library itself never returns from some damaged files (1 in 5000)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=64))
def test_damaged_bytes_never_raise_anything_but_bad_scan(
    tmp_path: Path, layout: str, at: float, junk: bytes
) -> None:
    keep = tmp_path / "whole"
    if not keep.exists():
        write_scan(keep / "s_1", a_scan(8, frames=stack(8, rows=1, cols=2), dark_flats=()), layout=layout)
        shutil.copytree(keep, tmp_path / "broken")
    broken = tmp_path / "broken"
    for whole in [path for path in keep.rglob("*") if path.is_file()]:
        data = bytearray(whole.read_bytes())
        first = int(at * (len(data) - 1))
        data[first : first + len(junk)] = junk
        (broken / whole.relative_to(keep)).write_bytes(data)
    with contextlib.suppress(BadScan):
        scan = open_scan(next(broken.iterdir()), options=RawOptions(log_absorption=True))
        scan.frames.read()
        describe(scan)


# --- angles


def test_equal_counts_are_left_alone() -> None:
    angles = np.array([0.3, 0.2, 0.25])
    matched, notes = match_angles(3, angles)
    np.testing.assert_array_equal(matched, angles)
    assert notes == ()


@given(n=st.integers(1, 400))
def test_one_angle_too_many_loses_the_last(n: int) -> None:
    angles = np.linspace(0, math.pi, n + 1)
    matched, notes = match_angles(n, angles)
    np.testing.assert_array_equal(matched, angles[:-1])
    assert "last angle was dropped" in notes[0]


@given(
    n=st.integers(2, 100), m=st.integers(2, 12), step=st.floats(-0.03, 0.03).filter(lambda s: abs(s) > 1e-4)
)
def test_several_angles_a_frame_are_averaged(n: int, m: int, step: float) -> None:
    angles = 0.1 + step * np.arange(n * m)
    matched, notes = match_angles(n, angles)
    np.testing.assert_allclose(matched, 0.1 + step * (np.arange(n) * m + (m - 1) / 2), atol=1e-12)
    assert f"groups of {m}" in notes[0]


def test_averages_go_across_the_wrap_of_the_encoder() -> None:
    turns = np.radians(np.arange(358.0, 366.0) % 360)
    matched, _ = match_angles(4, turns)
    np.testing.assert_allclose(np.degrees(matched) % 360, [358.5, 0.5, 2.5, 4.5])


@given(
    n=st.integers(10, 300),
    before=st.integers(0, 40),
    after=st.integers(0, 40),
    jitter=st.floats(0, 0.02),
    down=st.booleans(),
)
def test_runs_at_a_standstill_belong_to_flats_and_darks(
    n: int, before: int, after: int, jitter: float, down: bool
) -> None:
    moving = np.radians(np.linspace(0, 180, n))
    moving = moving[::-1] if down else moving
    step = abs(moving[1] - moving[0])
    rng = np.random.default_rng(n)
    still = [np.full(before, moving[0]), np.full(after, moving[-1])]
    shaken = [part + jitter * step * rng.uniform(-1, 1, part.size) for part in still]
    matched, notes = match_angles(n, np.concatenate([shaken[0], moving, shaken[1]]))
    if before + after == 1:  # indistinguishable from one angle too many
        assert "dropped" in notes[0]
        return
    np.testing.assert_allclose(matched, moving, atol=0.021 * step)
    assert (before + after == 0) == (notes == ())


def test_flats_taken_away_from_the_first_angle_are_trimmed_too() -> None:
    moving = np.radians(np.linspace(0.5, 180, 360))
    matched, notes = match_angles(360, np.concatenate([np.zeros(20), moving]))
    np.testing.assert_array_equal(matched, moving)
    assert "20 equal angles at the start and 0 at the end" in notes[0]


@pytest.mark.parametrize(("frames", "angles"), [(180, 170), (180, 183), (100, 0), (0, 5), (181, 180)])
def test_other_counts_are_refused_with_both_numbers(frames: int, angles: int) -> None:
    with pytest.raises(BadScan, match=f"{angles} angles for {frames} frames"):
        match_angles(frames, np.linspace(0, math.pi, angles))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_angles_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(BadScan, match="1 of 4 angles are not finite, the first is number 2"):
        match_angles(4, np.array([0, 1, bad, 3]))
    with pytest.raises(BadScan, match="not finite"):
        to_radians(np.array([0, 1, bad, 3]), unit="deg")


@pytest.mark.parametrize(
    ("values", "unit", "factor", "said"),
    [
        (np.linspace(0, 180, 9), "degrees", math.pi / 180, ""),
        (np.linspace(0, 180, 9), "Deg", math.pi / 180, ""),
        (np.linspace(0, 3.1, 9), "rad", 1, ""),
        (np.linspace(0, 3142, 9), "mrad", 1e-3, ""),
        (np.linspace(0, 180, 9, dtype=np.float32), "", math.pi / 180, "taken as degrees"),
        (np.arange(0, 180), "", math.pi / 180, "taken as degrees"),
        (np.linspace(-0.785, 5.45, 120), "", 1, "taken as radians"),
        (np.linspace(16740, 16920, 360), "deg", math.pi / 180, ""),
    ],
)
def test_units_of_angles(values: Any, unit: str, factor: float, said: str) -> None:
    angles, notes = to_radians(values, unit=unit)
    np.testing.assert_allclose(angles, values.astype(float) * factor)
    assert (said in notes[0]) if said else notes == ()


def test_the_layouts_unit_needs_no_mention_but_the_range_has_the_last_word() -> None:
    assert to_radians(np.linspace(0, 180, 9), layout_unit="deg")[1] == ()
    angles, notes = to_radians(np.linspace(0, 3.13, 9), layout_unit="deg")
    assert angles[-1] == pytest.approx(3.13)
    assert "raw.angle_unit" in notes[0]


def test_unknown_units_counts_and_other_shapes_are_refused() -> None:
    with pytest.raises(BadScan, match="'gon'"):
        to_radians(np.arange(4.0), unit="gon")
    with pytest.raises(BadScan, match="encoder counts"):
        to_radians(np.linspace(-39660, -3660, 100))
    for values in (np.zeros((3, 2)), np.array([b"a", b"b"])):
        with pytest.raises(BadScan, match="not a list of numbers"):
            to_radians(values)


@pytest.mark.parametrize(
    ("degrees", "said"),
    [
        (np.linspace(0, 180, 91), ""),
        (np.linspace(180, 0, 91), ""),
        (np.arange(0.035, 180, 0.5), ""),
        (np.linspace(0, 360, 181), ""),
        (np.arange(350, 530, 2) % 360, ""),
        (np.linspace(0, 150, 91), "only 150 deg"),
        (np.linspace(0, 200, 91), "neither half a turn nor a full one"),
        (np.linspace(0, 720, 361), "more than one scan"),
        (np.sort(np.linspace(0, 180, 91))[[0, 2, 1, *range(3, 91)]], "not monotonic: 1 of 90"),
        (np.delete(np.linspace(0, 180, 91), [40, 41, 42]), "a gap of 8 deg"),
        (np.linspace(0, 180, 8), "only 8 angles for 80 columns"),
        (np.array([0.0, 90.0]), "only 2 angles"),
    ],
)
def test_unusual_angles_are_noticed(degrees: Any, said: str) -> None:
    notes = " | ".join(angle_notes(np.radians(degrees), columns=80))
    assert (said in notes) if said else notes == ""


@pytest.mark.parametrize(("end", "word"), [(180, "half turn"), (360, "full turn"), (200, "202.2 deg")])
def test_angles_in_words(end: float, word: str) -> None:
    assert word in range_text(np.radians(np.linspace(0, end, 91)))


# --- units and times


@pytest.mark.parametrize(
    ("convert", "value", "unit", "want"),
    [
        (raw_units.length_um, 1.3e-6, "m", 1.3),
        (raw_units.length_um, 1.3e-3, "mm", 1.3),
        (raw_units.length_um, 1.3, "microns", 1.3),
        (raw_units.length_um, 1300, "nm", 1.3),
        (raw_units.length_um, 1.3e-6, "", 1.3),
        (raw_units.length_um, 1.3, "", 1.3),
        (raw_units.energy_kev, 80, "keV", 80),
        (raw_units.energy_kev, 80000, "eV", 80),
        (raw_units.energy_kev, 80000 * 1.602176634e-19, "J", 80),
        (raw_units.energy_kev, 80, "", 80),
        (raw_units.energy_kev, 80000, "", 80),
        (raw_units.energy_kev, 80000 * 1.602176634e-19, "", 80),
        (raw_units.duration_s, 200, "ms", 0.2),
        (raw_units.duration_s, 0.2, "", 0.2),
    ],
)
def test_units_are_converted_and_guesses_are_said(convert: Any, value: float, unit: str, want: float) -> None:
    got, notes = convert(value, unit, what="it")
    assert got == pytest.approx(want, rel=1e-12)
    assert bool(notes) == (unit == "" and convert is not raw_units.duration_s)


@pytest.mark.parametrize(
    ("value", "unit"), [(0.0, "m"), (-1.0, "m"), (math.nan, ""), (math.inf, "m"), (1, "furlong")]
)
def test_senseless_quantities_are_not_used(value: float, unit: str) -> None:
    got, notes = raw_units.length_um(value, unit, what="x_pixel_size")
    assert got is None
    assert "x_pixel_size" in notes[0]


def test_times_are_aware_and_naive_ones_are_said() -> None:
    want = datetime(2025, 3, 1, 15, tzinfo=UTC)
    for text in ("2025-03-01T10:00:00-05:00", "2025-03-01T10:00:00.0000000-0500", "2025-03-01 15:00:00Z"):
        assert raw_units.parse_time(text, what="t") == (want, ())
    naive, notes = raw_units.parse_time("2025-03-01T10:00:00", what="t")
    assert naive is not None
    assert naive.utcoffset() is not None
    assert naive.replace(tzinfo=None) == datetime(2025, 3, 1, 10)  # noqa: DTZ001
    assert "without a time zone" in notes[0]
    assert raw_units.parse_time("yesterday", what="t")[0] is None


def test_frame_stamps_count_from_1990_or_1970() -> None:
    now = datetime(2025, 3, 1, tzinfo=UTC).timestamp()
    assert raw_units.epics_time_s(now - 100 - 631152000, now_s=now) == now - 100
    assert raw_units.epics_time_s(now - 100, now_s=now) == now - 100
    for no_date in (12.5, 0.0, math.nan, 1e12):
        assert raw_units.epics_time_s(no_date, now_s=now) is None


# --- HEX generation 1


def test_hex_angles_of_panda_win_and_a_difference_is_said(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    truth = open_scan(path).angles_rad
    edit(path / "scan_00010.nxs", "entry/data/rotation_angle", np.degrees(truth).astype("f4") + 0.009)
    assert problems(path) == ""
    edit(path / "scan_00010.nxs", "entry/data/rotation_angle", np.degrees(truth).astype("f4") + 0.02)
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.angles_rad, truth)
    assert "differ by up to 0.02 deg: panda.hdf is used" in scan.warnings[0]
    edit(path / "scan_00010.nxs", "entry/data/rotation_angle", np.arange(7.0))
    assert "panda.hdf has 30 angles, scan_00010.nxs 7" in problems(path)


def test_hex_angles_come_from_either_file(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    truth = open_scan(path).angles_rad
    (path / "scan_00010.nxs").rename(tmp_path / "nxs")
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.angles_rad, truth)
    assert scan.start_time is not None
    assert abs(scan.start_time - START) < timedelta(microseconds=5)
    (tmp_path / "nxs").rename(path / "scan_00010.nxs")
    (path / "panda.hdf").write_bytes(b"")
    scan = open_scan(path)
    np.testing.assert_allclose(scan.angles_rad, truth, atol=1e-6)
    assert any("empty" in text for text in scan.warnings)
    (path / "panda.hdf").unlink()
    assert "float32 ones of scan_00010.nxs" in problems(path)
    (path / "scan_00010.nxs").unlink()
    with pytest.raises(BadScan, match=r"no angles: looked for panda\*\.hdf"):
        open_scan(path)


def test_hex_angle_counts_follow_the_rules(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    truth = np.degrees(open_scan(path).angles_rad)
    edit(path / "panda.hdf", "Angle", np.append(truth, 180.0))
    edit(path / "scan_00010.nxs", "entry/data/rotation_angle", None)
    assert "31 angles for 30 frames: the last angle was dropped" in problems(path)
    edit(path / "panda.hdf", "Angle", truth[:-3])
    with pytest.raises(BadScan, match=r"panda\.hdf.*27 angles for 30 frames"):
        open_scan(path)
    edit(path / "panda.hdf", "Angle", truth * 200 - 39660)
    with pytest.raises(BadScan, match="encoder counts"):
        open_scan(path)


def test_hex_takes_the_flats_before_and_after(tmp_path: Path) -> None:
    path = hex_folder(tmp_path, dark_flats=())
    for number, seconds in ((1, -9000), (5, -100), (20, 300), (30, 8000)):
        write_dark_flat(path.parent / f"scan_{number:05d}", dark_flat(seconds=seconds, seed=number))
    assert [item.origin for item in open_scan(path).dark_flats] == ["scan_00005", "scan_00020"]
    given_one = open_scan(path, dark_flat=[path.parent / "scan_00001"])
    assert [item.origin for item in given_one.dark_flats] == ["scan_00001"]
    (path.parent / "scan_00005" / "flat_00000.hdf").write_bytes(b"\0" * 100)
    scan = open_scan(path)
    assert [item.origin for item in scan.dark_flats] == ["scan_00001", "scan_00020"]
    assert any("left out" in text and "begins with zeros" in text for text in scan.warnings)


def test_hex_flats_in_the_scans_own_folder_are_used(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    for name in ("dark_00000.hdf", "flat_00000.hdf"):
        shutil.move(path.parent / "scan_00011" / name, path / name)
    assert [item.origin for item in open_scan(path).dark_flats] == ["scan_00010"]


def test_hex_without_any_time_uses_the_files(tmp_path: Path) -> None:
    path = hex_folder(tmp_path, start_time=None, dark_flats=())
    os.utime(path / "proj_00000.hdf", (1.7e9, 1.7e9))
    scan = open_scan(path)
    assert scan.start_time == datetime.fromtimestamp(1.7e9, tz=UTC)
    assert "no start time inside" in scan.warnings[0]


def test_hex_scan_is_found_by_its_files_and_links(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    for name in ("proj_00000.hdf", "scan_00010.nxs"):
        assert open_scan(path / name).shape == (30, 5, 12)
    with h5py.File(path / "scan_00010.nxs") as file:
        assert file["entry/data/data"].shape == (30, 5, 12)
    (path / "scan_00010.nxs").write_text("<xml/>")
    assert "start time not readable" in problems(path)
    assert find_scans(path)[0].holds == "projections"


def test_hex_with_two_cameras_needs_one_named(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    shutil.copy(path / "proj_00000.hdf", path / "proj_00001.hdf")
    with pytest.raises(BadScan, match=r"2 projection files \(proj_00000\.hdf, proj_00001\.hdf\)"):
        open_scan(path)
    assert open_scan(path / "proj_00001.hdf").frames.path.name == "proj_00001.hdf"  # type: ignore[attr-defined]


def test_hex_lost_frames_are_said(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    ids = np.arange(30)
    ids[12:] += 3
    edit(path / "proj_00000.hdf", "entry/instrument/NDAttributes/NDArrayUniqueId", ids)
    assert "frames were lost: the numbers jump after frame 11 (by 3 in all)" in problems(path)


# --- DataExchange and NXtomo


def test_dxchange_reads_old_keys_and_units(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.h5", a_scan(energy_kev=None, pixel_um=None), layout="dxchange")
    edit(path, "exchange/theta", np.linspace(0, math.pi, 30, dtype="f4"))
    edit(path, "measurement/instrument/monochromator/energy", [25000.0])
    edit(path, "process/acquisition/start_date", ["2020-06-12T15:11:12-0500"])
    scan = open_scan(path)
    assert scan.energy_kev == 25
    assert scan.angles_rad[-1] == pytest.approx(math.pi, rel=1e-6)
    assert scan.start_time == datetime(2020, 6, 12, 20, 11, 12, tzinfo=UTC)
    assert any("taken as radians" in text for text in scan.warnings)
    assert any("without a unit: taken as ev" in text for text in scan.warnings)
    edit(path, "exchange/theta", None)
    with pytest.raises(BadScan, match="no angles: /exchange/theta is missing"):
        open_scan(path)


def test_dxchange_with_empty_flats_has_none(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.h5", a_scan(), layout="dxchange")
    edit(path, "exchange/data_dark", np.zeros((0, 5, 12), np.uint16))
    assert open_scan(path).dark_flats[0].darks is None
    edit(path, "exchange/data_white", np.zeros((0, 5, 12), np.uint16))
    assert any("no flats" in text for text in open_scan(path).errors)


def nxtomo(path: Path, keys: list[int], angles: list[float] | None = None) -> Path:
    data = np.arange(len(keys), dtype=np.uint16)[:, None, None] + 100 + np.zeros((1, 2, 3), np.uint16)
    with h5py.File(path, "w") as file:
        file["entry1/tomo_entry/definition"] = "NXtomo"
        detector = file.create_group("entry1/tomo_entry/instrument/detector")
        detector["data"] = data
        detector["image_key"] = np.array(keys, dtype=float)
        file["entry1/tomo_entry/sample/rotation_angle"] = angles or list(np.linspace(0, 180, len(keys)))
        file["entry1/tomo_entry/sample/rotation_angle"].attrs["units"] = "deg"
    return path


def test_nxtomo_sorts_frames_by_image_key(tmp_path: Path) -> None:
    keys = [2, 2, 1, 1, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 1]
    scan = open_scan(nxtomo(tmp_path / "a.nxs", keys))
    number = 100 + np.arange(16)
    np.testing.assert_array_equal(scan.frames.read()[:, 0, 0], number[np.array(keys) == 0])
    np.testing.assert_allclose(scan.angles_rad, np.linspace(0, math.pi, 16)[np.array(keys) == 0])
    assert [list(item.flats.read()[:, 1, 1]) for item in scan.dark_flats] == [[102, 103], [110], [114, 115]]
    assert all(item.darks is not None and item.darks.shape[0] == 2 for item in scan.dark_flats)
    np.testing.assert_array_equal(scan.frames.read((1, 2), frames=(1, 5))[:, 0, 2], [105, 107, 108, 109])
    assert any("1 of 16 frames are marked as invalid" in text for text in scan.warnings)


def test_nxtomo_angles_of_projections_alone_are_enough(tmp_path: Path) -> None:
    scan = open_scan(nxtomo(tmp_path / "a.nxs", [1, *[0] * 10, 1], [18.0 * i for i in range(10)]))
    np.testing.assert_allclose(np.degrees(scan.angles_rad), 18.0 * np.arange(10))
    with pytest.raises(BadScan, match="9 angles for 12 frames"):
        open_scan(nxtomo(tmp_path / "b.nxs", [1, *[0] * 10, 1], [18.0 * i for i in range(9)]))


def test_nxtomo_control_keys_win_and_counts_must_agree(tmp_path: Path) -> None:
    path = nxtomo(tmp_path / "a.nxs", [1, *[0] * 10])
    group = "entry1/tomo_entry/instrument/detector"
    edit(path, f"{group}/image_key_control", [1, *[0] * 8, -1, -1])
    assert open_scan(path).shape[0] == 8
    edit(path, f"{group}/image_key_control", [1, 0, 0])
    with pytest.raises(BadScan, match="3 image keys for 11 frames"):
        open_scan(path)
    flats = nxtomo(tmp_path / "flats.nxs", [2, 1, 1])
    with pytest.raises(BadScan, match="darks and flats only"):
        open_scan(flats)
    edit(path, f"{group}/image_key_control", [*[0] * 11])
    assert len(open_scan(path, dark_flat=[flats]).dark_flats) == 1


def test_nxtomo_pixel_and_energy_are_those_at_the_sample(tmp_path: Path) -> None:
    path = nxtomo(tmp_path / "a.nxs", [1, *[0] * 10])
    entry = "entry1/tomo_entry"
    edit(path, f"{entry}/instrument/source/energy", [3.0], units="GeV")
    edit(path, f"{entry}/instrument/detector/x_pixel_size", 6.5e-6, units="m")
    edit(path, f"{entry}/instrument/detector/magnification", 5.0)
    edit(path, f"{entry}/instrument/beam/incident_energy", 80000.0, units="eV")
    scan = open_scan(path)
    assert scan.pixel_um == pytest.approx(1.3)
    assert scan.energy_kev == pytest.approx(80)
    edit(path, f"{entry}/instrument/detector/x_pixel_size", "b2017b74")
    assert open_scan(path).pixel_um is None


def test_nxtomo_without_frame_times_uses_start_and_end(tmp_path: Path) -> None:
    path = nxtomo(tmp_path / "a.nxs", [1, *[0] * 10, 1])
    edit(path, "entry1/start_time", START.isoformat())
    edit(path, "entry1/end_time", (START + timedelta(minutes=10)).isoformat())
    start_s = START.timestamp()
    assert [item.time_s for item in open_scan(path).dark_flats] == [start_s, start_s + 600]


# --- storage


def test_compressed_frames_are_read(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    data = open_scan(path).frames.read()
    for options in ({"compression": "gzip"}, hdf5plugin.Bitshuffle(), hdf5plugin.Blosc()):
        with h5py.File(path / "proj_00000.hdf", "r+") as file:
            del file["entry/data/data"]
            file.create_dataset("entry/data/data", data=data.astype(">u2"), chunks=(1, 5, 12), **options)
        frames = open_scan(path).frames
        assert frames.dtype == np.uint16
        np.testing.assert_array_equal(frames.read(), data)


def test_frames_never_written_are_counted(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    with h5py.File(path / "proj_00000.hdf", "r+") as file:
        del file["entry/data/data"]
        dataset = file.create_dataset("entry/data/data", (30, 5, 12), "u2", chunks=(1, 5, 12))
        dataset[:18] = 1500
    text = problems(path)
    assert "12 of 30 frames were never written" in text
    assert "projections zero everywhere, of the 5 looked at: 22, 29" in text


def test_links_stay_inside_the_folder_unless_allowed(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    outside = tmp_path / "elsewhere" / "big.hdf"
    outside.parent.mkdir()
    shutil.move(path / "proj_00000.hdf", outside)
    with h5py.File(path / "proj_00000.hdf", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("../../elsewhere/big.hdf", "/entry/data/data")
    with pytest.raises(BadScan, match=r"outside .*raw\.follow_links_outside = true"):
        open_scan(path)
    for options in (RawOptions(follow_links_outside=True), RawOptions(folder=tmp_path)):
        assert open_scan(path, options=options).frames.path.samefile(outside)  # type: ignore[attr-defined]
    outside.rename(path / "big.hdf")
    scan = open_scan(path)
    assert any("big.hdf is used" in text for text in scan.warnings)
    (path / "big.hdf").unlink()
    with pytest.raises(BadScan, match=r"external link to \.\./\.\./elsewhere/big\.hdf.*does not exist"):
        open_scan(path)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    with h5py.File(path / "proj_00000.hdf", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("proj_00000.hdf", "/entry/data/data")
    with pytest.raises(BadScan, match="circle"):
        open_scan(path)
    with h5py.File(path / "proj_00000.hdf", "w") as file:
        file["entry/data/data"] = h5py.SoftLink("/entry/data/data")
    with pytest.raises(BadScan, match="circle"):
        open_scan(path)


def test_a_virtual_dataset_needs_its_sources(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    shutil.move(path / "proj_00000.hdf", path / "part.hdf")
    virtual = h5py.VirtualLayout((30, 5, 12), "u2")
    virtual[:] = h5py.VirtualSource("part.hdf", "entry/data/data", (30, 5, 12))
    with h5py.File(path / "proj_00000.hdf", "w") as file:
        file.create_virtual_dataset("entry/data/data", virtual)
    assert open_scan(path).frames.read().min() >= 1000
    (path / "part.hdf").unlink()
    with pytest.raises(BadScan, match=r"is virtual and needs part\.hdf, which does not exist"):
        open_scan(path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, r"no dataset 'entry/data/data'; .*known: /entry/data/images"),
        (np.zeros((4, 5)), r"shape \(4, 5\)"),
        (np.zeros((0, 5, 12)), r"shape \(0, 5, 12\)"),
        (np.zeros((30, 5, 12), complex), "complex128"),
        (np.full((2, 2, 2), b"x"), r"\|S1"),
    ],
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, value: Any, said: str) -> None:
    path = hex_folder(tmp_path)
    with h5py.File(path / "proj_00000.hdf", "r+") as file:
        file.move("entry/data/data", "entry/data/images")
    edit(path / "proj_00000.hdf", "entry/data/data", value)
    with pytest.raises(BadScan, match=said):
        open_scan(path)


def test_a_group_in_place_of_frames_is_refused(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    with pytest.raises(BadScan, match="is a group, not frames"):
        open_frames(path / "proj_00000.hdf", "entry/data", options=RawOptions())


@given(mask=st.lists(st.booleans(), max_size=40), data=st.data())
def test_runs_select_what_the_mask_selects(mask: list[bool], data: st.DataObject) -> None:
    wanted = np.flatnonzero(mask)
    runs = runs_of(np.array(mask, dtype=bool))
    assert [i for a, b in runs for i in range(a, b)] == list(wanted)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(wanted))] * 2)))
    assert [i for a, b in clip_runs(runs, (first, last)) for i in range(a, b)] == list(wanted[first:last])


# --- what the numbers tell


def with_flats(tmp_path: Path, **changes: Any) -> str:
    item = replace(dark_flat(), **changes)
    return problems(hex_folder(tmp_path, dark_flats=(item,)))


def test_flats_of_another_shape_are_an_error_with_both_shapes(tmp_path: Path) -> None:
    text = problems(hex_folder(tmp_path, dark_flats=(dark_flat(rows=6, cols=10),)))
    assert "error: flats of scan_00011 have 6 x 10 (rows x columns), the projections 5 x 12" in text
    assert "error: darks of scan_00011 have 6 x 10" in text


def test_flats_of_zeros_are_an_error(tmp_path: Path) -> None:
    text = with_flats(tmp_path, flats=ArrayFrames(np.zeros((3, 5, 12), np.uint16)))
    assert "error: flats of scan_00011: zero everywhere" in text


@pytest.mark.parametrize(("share", "level"), [(0.005, ""), (0.05, "warning"), (1.0, "error")])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_saturated_flats(tmp_path: Path, share: float, level: str, dtype: type) -> None:
    flats = stack(3, rows=40, cols=50, low=3000, high=3100).data.astype(dtype)
    flats.reshape(3, -1)[:, : round(share * 2000)] = 65535
    item = DarkFlat(stack(2, rows=40, cols=50, low=90, high=110), ArrayFrames(flats), START.timestamp())
    text = problems(hex_folder(tmp_path, frames=stack(30, rows=40, cols=50), dark_flats=(item,)))
    assert (
        text == "" if not level else f"{level}: flats of scan_00011: saturated, {100 * share:.3g} %" in text
    )


def test_darks_and_flats_swapped_are_an_error(tmp_path: Path) -> None:
    item = dark_flat()
    assert item.darks is not None
    text = with_flats(tmp_path, darks=item.flats, flats=item.darks)
    assert "error: flats of scan_00011: not brighter than the darks in 100 %" in text
    assert "times as bright as the flats" in text


def test_some_flat_pixels_below_the_dark_are_a_warning(tmp_path: Path) -> None:
    flats = stack(3, low=3000, high=3100).data
    flats[:, 0, :4] = 50
    assert "warning: flats of scan_00011: not brighter than the darks in 6.67 %" in with_flats(
        tmp_path, flats=ArrayFrames(flats)
    )


def test_empty_projections_are_said(tmp_path: Path) -> None:
    data = stack(30).data
    data[0] = 0
    assert "warning: projections zero everywhere, of the 5 looked at: 0" in problems(
        hex_folder(tmp_path, frames=ArrayFrames(data))
    )
    zeros = ArrayFrames(np.zeros((30, 5, 12), np.uint16))
    text = problems(hex_folder(tmp_path / "b", frames=zeros))
    assert "error: projections: all 5 frames looked at are zero everywhere" in text


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    data = stack(30).data.astype(np.float32)
    data[0, 0, :3] = np.nan
    text = problems(hex_folder(tmp_path, frames=ArrayFrames(data)))
    assert "warning: projections: 3 of 300 values looked at are not finite" in text
    nothing = ArrayFrames(np.full((30, 5, 12), np.nan, np.float32))
    text = problems(hex_folder(tmp_path / "b", frames=nothing))
    assert "error: projections: no value is finite" in text


def test_absorption_without_the_option_is_suspected(tmp_path: Path) -> None:
    data = np.random.default_rng(0).uniform(-0.1, 3, (30, 5, 12)).astype(np.float32)
    path = hex_folder(tmp_path, frames=ArrayFrames(data), dark_flats=())
    assert "raw.log_absorption = true" in problems(path)
    assert problems(path, log_absorption=True) == ""


def test_two_projections_are_not_a_scan(tmp_path: Path) -> None:
    path = hex_folder(tmp_path, n=2)
    assert "error: 2 projections cannot be reconstructed" in problems(path)


def test_no_frame_is_read_when_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hex_folder(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a frame was read")

    monkeypatch.setattr(HdfFrames, "read", refuse)
    assert open_scan(path, look_at_frames=False).errors == ()


def test_description_holds_what_was_found(tmp_path: Path) -> None:
    scan = open_scan(write_scan(tmp_path / "s_1", a_scan(exposure_s=None), layout="nxtomo"))
    text = describe(scan)
    for part in (
        "NXtomo",
        "30 of 5 rows x 12 columns, uint16, 3.6e-06 GB",
        "step 6 deg (half turn)",
        "3 flats, 2 darks",
        "(60 s before the start)",
        "2025-03-01T10:00:00-05:00",
        "80 keV",
        "1.3 um",
        "exposure  not in the file",
    ):
        assert part in text
    assert "ERROR     no flats" in describe(open_scan(hex_folder(tmp_path, dark_flats=())))


# --- folders


def test_a_folder_of_scans_is_listed_in_order_of_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        write_scan(tmp_path / f"s_{number}", a_scan(dark_flats=()), layout="hex1")
    write_dark_flat(tmp_path / "s_11", dark_flat())
    write_scan(tmp_path / "late.h5", a_scan(start_time=START + timedelta(hours=1)), layout="dxchange")
    (tmp_path / "broken.nxs").write_text("<xml/>")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.h5").write_text("")
    found = find_scans(tmp_path)
    assert [(item.name, item.holds) for item in found] == [
        ("broken", None),
        ("late", "projections"),
        ("s_9", "projections"),
        ("s_10", "projections"),
        ("s_11", "dark_flat"),
        ("s_100", "projections"),
    ]
    assert "XML" in found[0].problem
    assert found[1].start_time == START + timedelta(hours=1)
    assert nearest_dark_flats(found, START) == [found[4]]
    with pytest.raises(BadScan, match="holds 4 scans, give one of them: late, s_9"):
        open_scan(tmp_path)


def test_one_scan_in_a_folder_is_that_scan(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    assert open_scan(path.parent).path == path
    assert [item.path for item in find_scans(path)] == [path]
    for place in (path, path / "proj_00000.hdf"):
        assert [item.name for item in find_scans(place)] == [open_scan(place).name]


def test_dark_flats_nearest_in_time_are_one_before_and_one_after() -> None:
    def at(minutes: float | None) -> Found:
        time = None if minutes is None else START + timedelta(minutes=minutes)
        return Found(f"at {minutes}", Path("x"), "hex1", "dark_flat", time)

    scan = Found("scan", Path("s"), "hex1", "projections", START)
    assert nearest_dark_flats([at(-50), scan, at(-5), at(8), at(90)], START) == [at(-5), at(8)]
    assert nearest_dark_flats([at(8), at(3)], START) == [at(3)]
    assert nearest_dark_flats([at(-8), at(None), at(-3)], START) == [at(-3)]
    assert nearest_dark_flats([at(None), at(None)], START) == [at(None)]
    assert nearest_dark_flats([scan], START) == []


def test_a_folder_without_scans_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadScan, match=r"looked for: .*DataExchange.*HEX.*NXtomo.*the folder holds nothing"):
        find_scans(tmp_path)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(BadScan, match=r"a\.h5: the file is empty \(0 bytes\)"):
        find_scans(tmp_path)
    hex_folder(tmp_path / "deep")
    with pytest.raises(BadScan, match=r"scans are in .*raw_data: give that folder"):
        find_scans(tmp_path / "deep" / "raw_data" / "..")
    with pytest.raises(BadScan, match="no such file or folder"):
        find_scans(tmp_path / "absent")


def test_unknown_layout_names_the_known() -> None:
    with pytest.raises(BadScan, match="did you mean 'nxtomo'"):
        write_scan(Path("x"), a_scan(), layout="nxtom")


def test_darks_and_flats_alone_are_not_a_scan(tmp_path: Path) -> None:
    path = write_dark_flat(tmp_path / "scan_00015", dark_flat())
    with pytest.raises(BadScan, match=r"darks and flats only.*raw\.dark_flat"):
        open_scan(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="file modes do not bind root")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = hex_folder(tmp_path)
    (path / "proj_00000.hdf").chmod(0)
    with pytest.raises(BadScan, match="no permission to read it"):
        open_scan(path)


# --- files of others


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("savu_stxm_is_xml.nxs", "not an HDF5 file: it is XML or HTML text"),
        ("v1150_GEIS.mpr", "Git LFS pointer"),
        ("link_target_missing.nxs", r"/dls/i13/data/2014/mt9396-1/raw/pco1-24888\.hdf .*does not exist"),
        ("hdf4_not_hdf5.hdf", "HDF4 file"),
        ("flat_saturated_65535.h5", r"in no known layout.*every value .* is 65535 \(saturated\)"),
    ],
)
def test_broken_files_are_refused_with_their_cause(shared_data: Path, name: str, said: str) -> None:
    with pytest.raises(BadScan, match=said):
        open_scan(shared_data / "broken_files" / name)


def test_a_real_dataexchange_scan_opens(shared_data: Path) -> None:
    scan = open_scan(shared_data / "tooth" / "tooth.h5")
    assert scan.errors == ()
    assert scan.shape == (181, 2, 640)
    assert math.degrees(scan.angles_rad[-1]) == pytest.approx(179.0055, abs=1e-4)
    assert scan.dark_flats[0].flats.shape == (10, 2, 640)


def test_cameras_in_separate_files_are_refused_with_the_cause(shared_data: Path) -> None:
    with pytest.raises(BadScan, match="2 projection files"):
        open_scan(shared_data / "i12_split_camera" / "tomo_data")
    with pytest.raises(BadScan, match="2 flat files"):
        layouts()["hex1"].open_dark_flat(shared_data / "i12_split_camera" / "dark_flat", options=RawOptions())


def test_compression_filters_of_detectors_are_there(shared_data: Path) -> None:
    folder = shared_data / "hdf5_filters"
    assert np.isfinite(open_frames(folder / "blosc.h5", "dset", options=RawOptions())[0].read()).all()
    path = folder / "regression_0.4.0.h5"
    keys = [key.removeprefix("/original/") for key in datasets(path) if key.startswith("/original/")]
    assert len(keys) == 21
    for key in keys:
        packed = read_array(path, f"compressed/{key}", options=RawOptions())
        plain = read_array(path, f"original/{key}", options=RawOptions())
        assert packed is not None
        assert plain is not None
        np.testing.assert_array_equal(packed[0], plain[0])
