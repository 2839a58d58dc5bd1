"""Readers of cyclers' files, against EC-Lab's own exports, round trips, and files that are none."""

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xctpipe.cycler import ReadOptions, kinds, mpr, mpt, read
from xctpipe.cycler.names import factor_of, split_unit
from xctpipe.cycler.text import moment, read_text
from xctpipe.errors import BadScan

PAIRS = ("gcpl.issue_149", "geis", "peis")
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ------------------------------------------------------------------ BioLogic's binary files


@pytest.mark.parametrize("name", PAIRS)
def test_mpr_equals_what_eclab_exports(shared_data: Path, name: str) -> None:
    folder = shared_data / "echem" / "eclab"
    stored = mpr.read_table(folder / f"{name}.mpr")
    path = folder / f"{name}.mpt"
    expected = mpt.columns_of(mpt.parse(read_text(path), path=path))

    assert stored.keys() <= expected.keys()
    assert len(stored) >= 16
    for column, values in stored.items():
        np.testing.assert_allclose(values, expected[column], rtol=5e-8, atol=0, err_msg=column)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("gcpl.issue_149", "2024-01-10T11:02:29.886"),
        ("geis", "2021-03-03T20:40:41"),
        ("peis", "2021-03-02T16:17:59"),
    ],
)
def test_both_files_of_a_pair_say_the_same(shared_data: Path, name: str, start: str) -> None:
    zone = ZoneInfo("America/New_York")
    a, b = (
        read(shared_data / "echem" / "eclab" / f"{name}.{end}", options=ReadOptions(zone))
        for end in ("mpr", "mpt")
    )

    assert a.start == b.start == datetime.fromisoformat(start).replace(tzinfo=zone)
    assert not a.says_zone
    np.testing.assert_allclose(a.elapsed_s, b.elapsed_s, rtol=1e-12)
    np.testing.assert_allclose(a.voltage_v, b.voltage_v, rtol=5e-8)
    # of this technique EC-Lab stores the charge, and derives the current of its export from it
    assert a.passed_mah.sum() == pytest.approx(b.passed_mah.sum(), rel=1e-7)


def test_chronopotentiometry(shared_data: Path) -> None:
    path = shared_data / "echem" / "ssb" / "CP_SSB.mpr"
    file = read(path)

    assert (file.technique, len(file.elapsed_s)) == ("CP", 30208)
    # by the layout alone, without the reader: 45 bytes a line, time and current in it at 3 and 19
    body = path.read_bytes()
    begin = body.index(b"VMP data") - 6 + 41 + 24 + 1007
    lines = np.frombuffer(body, np.uint8, 30208 * 45, begin).reshape(-1, 45)
    time = lines[:, 3:11].copy().view("<f8")[:, 0]
    amps = np.abs(lines[:, 19:23].copy().view("<f4")[:, 0].astype(np.float64))
    expected = sum((b - a) * (x + y) / 2 for a, b, x, y in zip(time, time[1:], amps, amps[1:], strict=False))
    assert file.passed_mah.sum() == pytest.approx(expected / 3600, rel=1e-6)
    # and the cycler's own counter, within its single precision and the lines' spacing
    own = mpr.read_table(path)["(Q-Qo)/C"]
    assert np.abs(np.cumsum(file.signed_mah) * 3.6 - own).max() < 2e-4 * file.passed_mah.sum() * 3.6


def _mpr(
    columns: list[tuple[int, str, list[float]]],
    *,
    version: int = 11,
    technique: int = 0x19,
    days: float = 45000.5,
) -> bytes:
    """A file in the layout of one version of the data."""
    ids_at, kind, begin = {0: (5, "u1", 100), 2: (5, "<u2", 405), 3: (5, "<u2", 406), 11: (6, "<u2", 1007)}[
        version
    ]
    n = len(columns[0][2])
    records = np.zeros(n, [(str(i), kind) for i, (_, kind, _) in enumerate(columns)])
    for i, (_, _, values) in enumerate(columns):
        records[str(i)] = values
    head = struct.pack("<IB", n, len(columns)).ljust(ids_at, b"\0")
    head += np.array([number for number, _, _ in columns], kind).tobytes()
    log = bytes(585) + struct.pack("<d", days) + bytes(50)
    parts = (
        (b"VMP Set   ", bytes([technique]) + bytes(20), 0),
        (b"VMP data  ", head.ljust(begin, b"\0") + records.tobytes(), version),
        (b"VMP LOG   ", log, 0),
    )
    out = b"BIO-LOGIC MODULAR FILE\x1a".ljust(48) + bytes(4)
    for name, body, number in parts:
        out += b"MODULE" + name + name.strip().ljust(25)
        new = version >= 10
        out += (
            struct.pack("<4I", 0xFFFFFFFF, len(body), 0, number)
            if new
            else struct.pack("<2I", len(body), number)
        )
        out += b"03/15/23" + body
    return out


TIME = (4, "<f8", [0.0, 1.0, 3.0])
VOLTAGE = (6, "<f4", [0.5, 0.25, 0.125])
CURRENT = (8, "<f4", [1.0, 1.0, 3.0])


@pytest.mark.parametrize("version", [0, 2, 3, 11])
def test_versions_of_mpr(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.mpr"
    path.write_bytes(_mpr([(1, "u1", [1, 1, 1]), TIME, VOLTAGE, CURRENT], version=version))

    file = read(path)

    assert file.start == datetime(2023, 3, 15, 12, tzinfo=UTC)
    assert file.elapsed_s.tolist() == TIME[2]
    assert file.voltage_v.tolist() == VOLTAGE[2]
    np.testing.assert_allclose(file.passed_mah, np.array([0, 1, 4]) / 3600)


def test_unknown_columns_are_skipped_where_their_place_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.mpr"
    odd = (9999, "<f8", [7.0, 8.0, 9.0])
    path.write_bytes(_mpr([TIME, odd, VOLTAGE, CURRENT]))
    assert read(path).current_ma.tolist() == CURRENT[2]
    path.write_bytes(_mpr([TIME, odd, (9998, "<f4", [0, 0, 0]), VOLTAGE, CURRENT]))
    assert read(path).voltage_v.tolist() == VOLTAGE[2]
    path.write_bytes(_mpr([odd, TIME, (9998, "<f4", [0, 0, 0]), VOLTAGE, CURRENT]))
    with pytest.raises(BadScan, match="no column for the time"):
        read(path)


def test_rest_needs_no_current(tmp_path: Path) -> None:
    path = tmp_path / "a.mpr"
    path.write_bytes(_mpr([TIME, VOLTAGE], technique=0x0B))
    assert read(path).passed_mah.tolist() == [0, 0, 0]
    path.write_bytes(_mpr([TIME, VOLTAGE]))
    with pytest.raises(BadScan, match=r"no column for the current.*cycler\.columns\.current"):
        read(path)


def test_mpr_that_is_cut_off(shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "echem" / "ssb" / "CP_SSB.mpr").read_bytes()
    path = tmp_path / "cut.mpr"
    path.write_bytes(content[:700_000])
    with pytest.raises(BadScan, match=r"does not say when it was started.*cycler\.start"):
        read(path)
    file = read(path, options=ReadOptions(start=datetime(2024, 5, 17, 14, 9, 11, 952000, tzinfo=UTC)))
    assert "of 30208 lines are there" in file.problems[0]
    assert 15_000 < len(file.elapsed_s) < 15_500
    for length in (60, 7000, 7300, 8200):
        path.write_bytes(content[:length])
        with pytest.raises(BadScan, match="cut off"):
            read(path)


def test_mpr_of_an_unknown_version(tmp_path: Path) -> None:
    path = tmp_path / "a.mpr"
    content = _mpr([TIME, VOLTAGE, CURRENT])
    at = content.index(b"VMP data") + 35 + 12
    path.write_bytes(content[:at] + struct.pack("<I", 77) + content[at + 4 :])
    with pytest.raises(BadScan, match=r"version 77 .* not known.*\.mpt"):
        read(path)
    path.write_bytes(_mpr([TIME, VOLTAGE, (70, "<f8", [1, 2, 3]), CURRENT]))
    with pytest.raises(BadScan, match="a line has 24 bytes"):
        read(path)


# ------------------------------------------------------------------ text


def _mpt(rows: list[tuple[float, float, float]], *, comma: bool, dos: bool, head: int) -> bytes:
    lines = [
        "EC-Lab ASCII FILE",
        f"Nb header lines : {head + 6}",
        "",
        "Chrono Potentiometry",
        "Acquisition started on : 03/15/2023 12:00:00.250",
        *["Température : 25 °C"] * head,
        "time/s\tEwe/V\tI/mA\t",
    ]
    lines += ["\t".join([f"{value:.15E}" for value in row] + [""]) for row in rows]
    text = "\n".join(
        [*lines[: head + 6], *(line.replace(".", ",") if comma else line for line in lines[head + 6 :]), ""]
    )
    return (text.replace("\n", "\r\n") if dos else text).encode("latin-1")


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: float(f"{value:.12g}"))
ROWS = st.lists(st.tuples(st.floats(0, 1e6), NUMBERS, NUMBERS), min_size=1, max_size=20).map(
    lambda rows: sorted(rows, key=lambda row: row[0])
)


@QUICK
@given(rows=ROWS, comma=st.booleans(), dos=st.booleans(), head=st.integers(0, 90))
def test_mpt_reads_back(
    tmp_path: Path, rows: list[tuple[float, float, float]], comma: bool, dos: bool, head: int
) -> None:
    path = tmp_path / "a.mpt"
    path.write_bytes(_mpt(rows, comma=comma, dos=dos, head=head))

    file = read(path)

    expected = np.array(rows)
    assert file.start == datetime(2023, 3, 15, 12, 0, 0, 250000, tzinfo=UTC)
    np.testing.assert_allclose(file.elapsed_s, expected[:, 0], rtol=1e-14)
    np.testing.assert_allclose(file.voltage_v, expected[:, 1], rtol=1e-14)
    np.testing.assert_allclose(file.current_ma, expected[:, 2], rtol=1e-14)


@QUICK
@given(
    rows=ROWS,
    style=st.sampled_from([(",", False), (";", True), (";", False), ("\t", True)]),
    dated=st.booleans(),
    preamble=st.integers(0, 3),
    data=st.data(),
)
def test_csv_reads_back(
    tmp_path: Path,
    rows: list[tuple[float, float, float]],
    style: tuple[str, bool],
    dated: bool,
    preamble: int,
    data: st.DataObject,
) -> None:
    delimiter, comma = style
    start = datetime(2023, 3, 15, 12, tzinfo=UTC)
    expected = np.array(rows)
    expected[:, 0] = np.round(expected[:, 0], 6)
    if dated:
        expected[:, 0] -= expected[0, 0]
        times = [(start + timedelta(seconds=float(t))).isoformat() for t in expected[:, 0]]
    else:
        times = [f"{t:.6f}" for t in expected[:, 0]]
    cells = [[t, f"{u * 1e3:.15E}", f"{i / 1e3:.15E}"] for t, (_, u, i) in zip(times, rows, strict=True)]
    if comma:
        cells = [[cell if "T" in cell else cell.replace(".", ",") for cell in line] for line in cells]
    names = ["clock", "cell [mV]", "I_A"]
    order = data.draw(st.permutations(range(3)))
    table = [[line[i] for i in order] for line in [names, *cells]]
    text = "\n".join([*["made by a program"] * preamble, *map(delimiter.join, table)])
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    wanted = {"time": "clock", "voltage": "cell [mV]", "current": "I_A"}

    file = read(path, options=ReadOptions(start=None if dated else start, columns=wanted))

    assert (file.start, file.says_zone) == (start, True)
    np.testing.assert_allclose(file.elapsed_s, expected[:, 0], atol=2e-6)
    np.testing.assert_allclose(file.voltage_v, expected[:, 1], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(file.current_ma, expected[:, 2], rtol=1e-12, atol=1e-300)


def test_times_of_mpt(tmp_path: Path) -> None:
    assert (
        moment("03/15/2023 12:00:00.250")
        == moment("15/03/2023 12:00:00,25")
        == moment("2023-03-15T12:00:00.250")
    )
    assert moment("03.15.23 12:00:00.250") == moment("2023-03-15 12:00:00.25")
    assert moment("12.5") is moment("1,5E+003") is moment("99/99/2023 12:00") is None
    dates = "time/s\tEwe/V\tI/mA\n03/15/2023 12:00:01.000\t1\t2\n03/15/2023 12:00:03.500\t1\t2\n"
    path = tmp_path / "absolute.mpt"
    path.write_text("EC-Lab ASCII FILE\nNb header lines : 3\n" + dates, encoding="latin-1")
    file = read(path)
    assert file.start == datetime(2023, 3, 15, 12, 0, 1, tzinfo=UTC)
    assert file.elapsed_s.tolist() == [0, 2.5]


def test_clocks_that_are_set_back_for_winter(tmp_path: Path) -> None:
    table, export = tmp_path / "a.csv", tmp_path / "a.mpt"
    table.write_text("time,I/mA\n2025-11-02T00:30:00,1\n2025-11-02T03:30:00,1\n", encoding="utf-8")
    dates = "time/s\tEwe/V\tI/mA\n11/02/2025 00:30:00\t1\t1\n11/02/2025 03:30:00\t1\t1\n"
    export.write_text("EC-Lab ASCII FILE\nNb header lines : 3\n" + dates, encoding="latin-1")
    for path in (table, export):
        file = read(path, options=ReadOptions(ZoneInfo("Etc/UTC")))
        assert file.elapsed_s[-1] == 3 * 3600
        file = read(path, options=ReadOptions(ZoneInfo("America/New_York")))
        assert file.elapsed_s[-1] == 4 * 3600


def test_units() -> None:
    assert split_unit("I/mA") == ("I", "mA")
    assert split_unit("(Q-Qo)/mA.h") == ("(Q-Qo)", "mA.h")
    assert split_unit("Current (µA)") == ("Current", "µA")
    assert split_unit("charge_mah_cm2") == ("charge", "mah_cm2")
    assert split_unit("j/mA/cm²") == ("j", "mA_cm²")
    assert factor_of("µA", "current", area_cm2=2) == 1e-3
    assert factor_of("mA/cm2", "current", area_cm2=2) == 2
    assert factor_of("mah_cm2", "charge", area_cm2=2) == 2
    assert factor_of("V/cm2", "voltage", area_cm2=2) is None
    assert factor_of("furlong", "time", area_cm2=2) is None


# ------------------------------------------------------------------ what is none


def test_broken_files(shared_data: Path) -> None:
    folder = shared_data / "broken_files"
    for name, said in (
        ("v1150_GEIS.mpr", "pointer of Git LFS.*git lfs pull"),
        ("savu_stxm_is_xml.nxs", "XML"),
        ("hdf4_not_hdf5.hdf", "HDF4"),
        ("link_target_missing.nxs", "HDF5"),
    ):
        with pytest.raises(BadScan, match=said):
            read(folder / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "export the sheet as CSV"),
        (b"\x00\x01\x02\x03", r"begins with .* mpr, mpt"),
        (b"EC-LAB SETTING FILE\r\n", "settings"),
        (b"EC-Lab ASCII FILE\nNb header lines : 3\ntime/s\tI/mA\n", "no line of data"),
        (b"EC-Lab ASCII FILE\nNb header lines : 99\n", "no line with the names"),
        (b"EC-Lab ASCII FILE\nNb header lines : 3\ntime/s\tEwe/V\tI/mA\n1\t2\t3\n", "does not say when"),
        (b"EC-Lab ASCII FILE\nNb header lines : 3\nfreq/Hz\tEwe/V\n1\t2\n", "no column for the time"),
        (b"time,I/mA\n", "no line of data below"),
        (b"time,I/mA\nnever,1\n", "does not say when"),
        (b"a,b\n1,2\n", "no line names a column 'time'"),
        (b"time,U/V\n2025-01-01,1\n", "no column for the current"),
        (b"timestamp,I/mA\n1735732800000,1\n1735732801000,1\n", "no date; give its unit"),
        (b"timestamp,I/mA\n1e300,1\n", "no date; give its unit"),
        (b"time,I/mA\n2025-01-01T10:00:00," + 200_000 * b"1", "is no table"),
        (b"time,I/mA\n0001-01-01T00:00:00+09:00,1\n", "before the year 1"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    with pytest.raises(BadScan, match=said):
        read(path)


def test_named_columns_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Zeit,Spannung/V,Strom/mA\n0,1,2\n", encoding="utf-8")
    with pytest.raises(BadScan, match=r"'Stron/mA'.*did you mean 'Strom/mA'"):
        read(path, options=ReadOptions(columns={"time": "Zeit", "current": "Stron/mA"}))
    with pytest.raises(BadScan, match=r"unit of the column 'Spannung/V' is not known.*mA"):
        read(path, options=ReadOptions(columns={"time": "Zeit", "current": "Spannung/V"}))
    with pytest.raises(BadScan, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_lines_without_numbers_and_time_running_back(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time_s,I/mA\n0,1\n1,XXX\n2,1\n1.5,1\n3,1\n", encoding="utf-8")
    file = read(path, options=ReadOptions(start=datetime(2025, 1, 1, tzinfo=UTC)))
    assert file.elapsed_s.tolist() == [0, 2, 3]
    assert "2 lines" in file.problems[0]


def test_kinds() -> None:
    assert set(kinds()) == {"mpr", "mpt", "csv"}
