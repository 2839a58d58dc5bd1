"""Pieces of the report: where things are, when cracks appeared, meshes, words and methods."""

import base64
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import (
    CRACK_X,
    EVIL,
    FIRST_ROW,
    INTERFACE_ROW,
    NAMES,
    PIXEL,
    SHAPE,
    join,
    make_run,
    register,
    write,
)

from xctpipe import recon, steps, volume
from xctpipe.report import appearance, drawing, maps, mesh, methods, page, sections
from xctpipe.report import points as series
from xctpipe.report.place import grid_at, placed, sample
from xctpipe.report.sentences import sentences
from xctpipe.report.source import Run, read_run
from xctpipe.report.wording import listed, number, ranged
from xctpipe.segment.codes import PHASES
from xctpipe.series.rigid import Rigid


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything."""
    folder = make_run(tmp_path_factory.mktemp("whole"))
    join(folder)
    return folder


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose third scan failed, measured and not followed."""
    return make_run(tmp_path_factory.mktemp("gapped"), failed=EVIL)


class TestPlaces:
    def test_voxels_lie_where_tables_say_at_every_level(self, tmp_path: Path) -> None:
        path = tmp_path / "edge.ome.zarr"
        spec = volume.VolumeSpec((4, 1030, 600), 2.0, first_row=7)
        volume.create(path, spec, name="a", attributes={})
        assert grid_at(path, level=0).places(np.array([3, 1029, 0])).tolist() == [20.0, 1029.0, -599.0]
        fine = grid_at(path, level=0).places(np.array([[2, 4, 8], [3, 5, 9]])).mean(axis=0)
        assert grid_at(path, level=1).places(np.array([1, 2, 4])) == pytest.approx(fine)
        assert grid_at(path, level=1).voxels(fine) == pytest.approx([1, 2, 4])

    def test_values_are_linear_between_voxels_and_not_there_beyond(self, tmp_path: Path) -> None:
        spec = volume.VolumeSpec(SHAPE, PIXEL, first_row=0)
        volume.create(tmp_path / "a", spec, name="a", attributes={})
        grid = grid_at(tmp_path / "a", level=0)
        ramp = np.add.outer(np.add.outer(100.0 * np.arange(24), 10.0 * np.arange(40)), np.arange(40.0))
        at = np.array([[3.25, 10.5, 20.75], [0, 0, 0], [-1, 5, 5], [5, 5, 41]])
        found = sample(lambda box: ramp[box], grid, grid.places(at), order=1, beyond=-1.0)
        assert found == pytest.approx([325 + 105 + 20.75, 0, -1, -1])

    def test_registration_goes_before_the_height_of_the_interface(self, tmp_path: Path) -> None:
        run = read_run(make_run(tmp_path))
        assert {p.how for p in placed(run).values()} == {"interface"}
        assert placed(run)["scan_4"].rigid == Rigid(shift_um=(-10.0, 0.0, 0.0))
        register(tmp_path)
        found = placed(read_run(tmp_path))
        assert {p.how for p in found.values()} == {"registration"}
        assert found["scan_4"].rigid.shift_um == (-10.0, 30.0, 0.0)

    def test_a_failed_registration_is_not_used(self, tmp_path: Path) -> None:
        make_run(tmp_path)
        row = {"part": "pellet", "dz_um": 500, "dy_um": 0, "dx_um": 0, "status": "failed"}
        write(tmp_path, "registration", [{"scan": "scan_2", **row}])
        assert placed(read_run(tmp_path))["scan_2"].rigid.shift_um == (10.0, 0.0, 0.0)


def _crack_place(cut: Any) -> tuple[float, float]:
    rows, columns = np.nonzero(cut.phases == PHASES["crack"])
    return float(rows.min()), float(columns.mean())


class TestSections:
    def test_registered_scans_show_the_same_place(self, whole: Path) -> None:
        run = read_run(whole)
        cuts = sections.cuts_of(run, placed(run))
        assert cuts is not None
        assert cuts.along == "y"
        for name in NAMES[1:]:
            assert _crack_place(cuts.vertical[name]) == (INTERFACE_ROW, 19.5)
        assert not (cuts.vertical["scan_1"].phases == PHASES["crack"]).any()
        assert cuts.top_cm1 == pytest.approx(1.3 * 2.0)

    def test_without_registration_they_are_aligned_at_the_interface(self, gapped: Path) -> None:
        run = read_run(gapped)
        cuts = sections.cuts_of(run, placed(run))
        assert cuts is not None
        assert list(cuts.vertical) == ["scan_1", "scan_2", "scan_4"]
        tops = {int((cut.phases == PHASES["nak"])[:, 5].nonzero()[0].max()) for cut in cuts.vertical.values()}
        assert tops == {INTERFACE_ROW - 1}

    def test_what_is_beyond_the_view_is_opaque_and_objects_are_stronger_than_layers(
        self, whole: Path
    ) -> None:
        run = read_run(whole)
        cuts = sections.cuts_of(run, placed(run))
        assert cuts is not None
        layer = sections.label_pixels(cuts.vertical["scan_4"])
        phases = cuts.vertical["scan_4"].phases
        assert set(layer[phases == 0][:, 3].tolist()) == {255}
        assert layer[phases == PHASES["crack"]][0, 3] > layer[phases == PHASES["nasicon"]][0, 3] > 0

    def test_contact_maps_lie_on_the_grid_of_the_first_scan(self, whole: Path) -> None:
        run = read_run(whole)
        found = maps.contact_maps(run, placed(run))
        assert set(found) == set(NAMES)
        # the stack has moved 3 rows: that many are not in the map of the last scan
        beyond = (found["scan_4"].pixels == 255).all(axis=2)
        assert beyond[-3:].all()
        assert not beyond[:-3].any()


class TestAppearance:
    def test_from_labels_each_place_has_the_first_scan_with_a_crack(self, whole: Path) -> None:
        run = read_run(whole)
        found = appearance.appearance_of(run, placed(run))
        assert found is not None
        assert not found.tracked
        expected = np.zeros((9, 40, 40), np.uint8)
        for n in (3, 2, 1):
            expected[: 3 * n, 15:25, CRACK_X] = n + 1
        assert np.array_equal(found.numbers, expected)
        assert found.first_um[0] == (FIRST_ROW + INTERFACE_ROW) * PIXEL

    def test_that_of_the_tracking_is_used_and_its_numbers_are_names(self, tmp_path: Path) -> None:
        from xctpipe.appearance_volume import write_appearance

        folder = make_run(tmp_path, failed="scan_2")
        numbers = np.zeros(SHAPE, np.uint8)
        numbers[10, 5, 5], numbers[11, 5, 5] = 2, 3
        path = folder / "scans" / "scan_1" / "edge.ome.zarr"
        write_appearance(path, lambda at: numbers[at], level=0, scans=["scan_1", EVIL, "scan_4"])
        run = read_run(folder)
        found = appearance.appearance_of(run, placed(run))
        assert found is not None
        assert found.tracked
        assert [entry.number for entry in found.scans] == [1, 3, 4]
        assert found.numbers[:, 5, 5].tolist() == [2, 3]

    def test_colours_get_brighter(self, whole: Path) -> None:
        run = read_run(whole)
        found = appearance.appearance_of(run, placed(run))
        assert found is not None
        light = [np.dot(rgb, (0.299, 0.587, 0.114)) for rgb in appearance.colours(found).values()]
        assert len(light) == 3
        assert np.all(np.diff(light) > 20)


def _made(numbers: np.ndarray, voxel_um: float = 2.0) -> appearance.Appearance:
    scans = tuple(_entry(i + 1) for i in range(int(numbers.max())))
    return appearance.Appearance(numbers, scans, (10.0, 20.0, 30.0), voxel_um, True)


def _entry(number_: int) -> Any:
    from xctpipe.report.source import Entry

    return Entry(f"s{number_}", number_, {}, {}, None, True, True, "")


class TestMesh:
    def test_a_ball_has_its_place_and_volume(self) -> None:
        z, y, x = np.ogrid[:31, :31, :31]
        ball = ((z - 15) ** 2 + (y - 15) ** 2 + (x - 15) ** 2 <= 12**2).astype(np.uint8)
        made = mesh.surfaces_of(_made(ball))
        assert made is not None
        vertices, faces = made.parts[0].vertices_um.astype(float), made.parts[0].faces
        assert vertices.mean(axis=0) == pytest.approx([10 + 30, 20 + 30, 30 + 30], abs=0.05)
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        enclosed = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
        assert enclosed == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.03)

    def test_few_enough_faces_and_a_thin_sheet_is_kept(self) -> None:
        sheet = np.zeros((60, 60, 60), np.uint8)
        sheet[:, 30, :], sheet[:, 30, 40:] = 1, 2
        made = mesh.surfaces_of(_made(sheet), most_faces=4000)
        assert made is not None
        assert made.n_faces <= 4000
        assert [part.number for part in made.parts] == [1, 2]
        every = np.concatenate([part.vertices_um for part in made.parts])
        assert np.ptp(every[:, 0]) > 0.9 * 59 * 2.0
        assert made.parts[1].vertices_um[:, 2].min() >= 30 + 2.0 * 38

    def test_arrays_are_packed_as_plotly_reads_them(self) -> None:
        box = np.zeros((4, 4, 4), np.uint8)
        box[1:3, 1:3, 1:3] = 1
        found = _made(box)
        made = mesh.surfaces_of(found)
        assert made is not None
        trace = mesh.plotly_figure(found, made)["data"][0]
        x = np.frombuffer(base64.b64decode(trace["x"]["bdata"]), trace["x"]["dtype"])
        i = np.frombuffer(base64.b64decode(trace["i"]["bdata"]), trace["i"]["dtype"])
        assert np.array_equal(x, made.parts[0].vertices_um[:, 2])
        assert (x.dtype, i.dtype, i.max() < len(x)) == ("float32", "int32", True)

    def test_no_crack_is_no_mesh(self) -> None:
        assert mesh.surfaces_of(_made(np.zeros((3, 3, 3), np.uint8))) is None


def _said(run: Run) -> str:
    first, rest = sentences(run, series.rows_of(run), series.along(run))
    return " ".join([*first, *rest])


class TestWords:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "–"),
            (0.0, "0"),
            (12345.6, "12346"),
            (7.4e7, "7.40 × 10⁷"),
            (-2.5e-5, "−2.50 × 10⁻⁵"),
            (True, "yes"),
        ],
    )
    def test_numbers(self, value: Any, text: str) -> None:
        assert number(value) == text

    def test_an_interval_has_one_power_of_ten(self) -> None:
        assert ranged(7.4e7, 7.21e7, 7.59e7) == "7.40 (7.21 to 7.59) × 10⁷"
        assert ranged(0, -1e6, 2e6) == "0 (−1.00 to 2.00) × 10⁶"
        assert ranged(0.98, None, 0.99) == "0.980"

    def test_lists(self) -> None:
        assert listed(["a", "b", "c"]) == "a, b and c"

    def test_findings_are_what_the_tables_hold(self, whole: Path) -> None:
        run = read_run(whole)
        text = _said(run)
        assert (
            "The cracks hold nothing at 0 mAh/cm² and 3.00 (2.70 to 3.30) × 10⁻⁵ mm³ at 0.3 mAh/cm²: "
            "they grew." in text
        )
        assert (
            "Crack 7 grew from scan_2 to scan_4 by 0.0740 (0.0720 to 0.0760) mm³ per mAh/cm², with an onset "
            "at 0.100 mAh/cm²." in text
        )
        assert "A crack joins both electrodes in scan_4, at 0.3 mAh/cm²" in text
        assert "The voltage dropped, as in a short, at 0.28 mAh/cm²." in text
        assert f"Between scan_2 and {EVIL} a chip came off or moved." in text
        assert "No bubbles were found." in text

    def test_growth_of_cracks_and_the_short_come_first_and_events_of_an_interval_together(
        self, tmp_path: Path
    ) -> None:
        join(make_run(tmp_path))
        rate = {"scan_from": "scan_1", "scan_to": "scan_4", "growing": True, "low": 1e6, "high": 3e6}
        write(
            tmp_path,
            "growth",
            [
                {"kind": kind, "track": track, "n_scans": n, "dvolume_dcharge_um3_per_mah_cm2": 2e6, **rate}
                for kind, track, n in (
                    ("chip", 4, 4),
                    ("crack", 3, 2),
                    ("crack", 7, 3),
                    ("all_cracks", "", 4),
                )
            ],
        )
        between = {"scan_from": "scan_2", "scan_to": "scan_4"}
        write(tmp_path, "events", [{"kind": k, **between} for k in ("chip", "fill", "chip", "birth")])
        run = read_run(tmp_path)
        first, rest = sentences(run, series.rows_of(run), series.along(run))
        starts = (
            "All cracks together grew",
            "Crack 7 grew",
            "The cracks hold",
            "A crack joins",
            "The voltage",
        )
        assert [text.startswith(start) for text, start in zip(first, starts, strict=False)] == [True] * 5
        assert rest[0].startswith("Crack 3 grew")
        assert (
            "Between scan_2 and scan_4 a crack filled with metal and a chip came off or moved (2 times)."
            in rest
        )

    def test_what_does_not_grow_is_not_said_to_grow(self, tmp_path: Path) -> None:
        join(make_run(tmp_path))
        row = {"track": 1, "kind": "crack", "dvolume_dcharge_um3_per_mah_cm2": 5.0, "low": -9, "high": 20}
        write(tmp_path, "growth", [{**row, "growing": False, "scan_from": "scan_1", "scan_to": "scan_4"}])
        rows = [
            {"scan": n, "crack_volume_um3": 1e4 + 100 * i, "crack_low_um3": 9e3, "crack_high_um3": 1.2e4}
            for i, n in enumerate(NAMES)
        ]
        write(tmp_path, "series", rows)
        run = read_run(tmp_path)
        text = _said(run)
        assert "grew from" not in text
        assert "No tracked object changed by more than its uncertainty." in text
        assert "between the two the change is within the intervals" in text


class TestMethods:
    def test_every_step_is_named_with_what_its_docstring_cites(self) -> None:
        for name, step in steps.registered().items():
            cited = re.findall(r"doi:(10\.\d{4,}/\S+)", inspect.getdoc(step.function) or "")
            assert set(cited) <= set(methods.STEPS[name][1]), name

    def test_every_backend_is_named(self) -> None:
        assert set(recon.backends()) <= set(methods.BACKENDS)

    def test_every_source_is_known(self) -> None:
        cited = {doi for _, dois in (*methods.STEPS.values(), *methods.BACKENDS.values()) for doi in dois}
        table = {"center": {}, "segment": {"classifier": "a"}, "reconstruct": {"padding": "cylinder"}}
        recipe = {**table, "flat_field": {"dynamic": True}, "phase": {"delta_beta": 350.0}}
        done = frozenset({"reconstruct", "measure", "track"})
        cited |= set(methods.citations(methods.sentences(recipe, done=done, version="1")))
        assert cited <= set(methods.SOURCES)


def test_a_picture_keeps_its_pixels() -> None:
    from matplotlib.image import imread

    pixels = np.arange(60, dtype=np.uint8).reshape(3, 5, 4) * 4
    content = drawing.image(pixels, form="png")
    import io

    assert np.array_equal(np.rint(255 * imread(io.BytesIO(content))), pixels)


def test_scale_bars_are_round_and_fit() -> None:
    for width in (37.0, 411.0, 4160.0, 9.9e4):
        bar = page._bar(width)
        length = float(bar["text"].split()[0])
        assert bar["share"] == pytest.approx(100 * length / width)
        assert 9 <= bar["share"] <= 30
        assert re.match(r"[125]0*$|0\.[125]$", bar["text"].split()[0])
