"""The benchmark: what it finds, and what it says when something is missing. Times are never judged."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe import bench, recon, steps
from xctpipe.bench import runner, scene
from xctpipe.bench.case import Case, CaseResult, Part, Peer, PeerResult, Report
from xctpipe.bench.lane import CountingSink, RepeatedFrames
from xctpipe.bench.scene import Size
from xctpipe.bench.setting import Options, Setting
from xctpipe.cli import main
from xctpipe.correct.zingers import zingers
from xctpipe.errors import BadRecipe

SMALL = "120x4x64"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is written of corrections, backends and disk, at a size that takes seconds."""
    path = tmp_path_factory.mktemp("bench") / "found.json"
    cases: dict[str, Any] = {}
    for only in ("corrections", "backends", "disk", "axis"):
        call = ["bench", "--quick", "--size", SMALL, "--pairs", "1", "--only", only, "--json", str(path)]
        assert main(call) == 0
        found = json.loads(path.read_text())
        cases |= {case["name"]: case for case in found.pop("cases")}
    return {**found, "cases": cases}


def test_every_backend_and_every_way_to_remove_stripes_is_timed(quick: dict[str, Any]) -> None:
    stripes = {name for name in steps.registered() if name.startswith("stripes_")}
    assert stripes | set(recon.backends()) | {"flat", "zingers", "flat+zingers+log"} <= quick["cases"].keys()
    for case in quick["cases"].values():
        assert case["unavailable"] or (min(case["ours_s"]) > 0 and case["rate"] > 0)
        for peer in case["peers"]:
            assert not peer["failed"]
            assert peer["ratio"]["low"] <= peer["ratio"]["median"] <= peer["ratio"]["high"]


def test_backends_that_cannot_be_used_say_why(quick: dict[str, Any]) -> None:
    for name, backend in recon.backends().items():
        case = quick["cases"][name]
        assert case["unavailable"] == backend.available()
        assert bool(case["ours_s"]) == (backend.available() is None)


def test_methods_of_the_same_name_do_the_same(quick: dict[str, Any]) -> None:
    # sorting is the same on both sides, down to ties
    case = quick["cases"]["stripes_sorting"]
    assert case["error"] == pytest.approx(case["peers"][0]["error"], rel=0.01)
    # other kernels, but the same slice: half a pixel or a factor of two beside it would show
    errors = [quick["cases"]["fourier"]["error"], quick["cases"]["fourier"]["peers"][0]["error"]]
    assert max(errors) < 1.5 * min(errors) < 0.1


def test_where_it_ran_is_written(quick: dict[str, Any]) -> None:
    assert quick["size"] == SMALL
    assert quick["machine"]["cores"] >= 1
    assert quick["versions"]["numpy"] == np.__version__
    assert quick["versions"]["algotom"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--size", "3001*64"], "ANGLESxROWSxCOLUMNS"),
        (["--size", "8x8x8"], "8 angles; 16 to"),
        (["--size", "64x4x999999"], "999999 columns"),
        (["--size", SMALL, "--only", "warp_drive"], "groups: corrections"),
        (["--size", SMALL, "--scratch", "no/such/folder"], "is no folder"),
        (["--size", SMALL, "--json", "no/such/folder/found.json"], "--json"),
        (["--size", SMALL, "--pairs", "0"], "pairs"),
    ],
)
def test_a_wrong_call_says_what_to_do(
    call: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *call]) == 2
    printed = capfd.readouterr()
    assert message in printed.out + printed.err
    assert not list(tmp_path.iterdir())


def test_what_is_missing_ends_in_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = CaseResult(
        "backends", "fourier", "slice", 1, [1.0], 1.0, float("nan"), [PeerResult("algotom FBP")]
    )
    broken.peers[0].failed = "ValueError: no"
    monkeypatch.setattr(bench, "run_bench", lambda _: Report({}, [broken]))
    call = ["bench", "--quick", "--only", "fourier", "--json", str(tmp_path / "found.json")]
    assert main(call) == 3
    printed = capsys.readouterr().err
    for text in ("has no error", "no ratio", "algotom FBP failed: ValueError: no"):
        assert text in printed
    assert main([*call, "--no-peers"]) == 3


def test_a_backend_that_was_not_timed_is_missed() -> None:
    lines = bench.missing(Report({}), Options())
    usable = [name for name, backend in recon.backends().items() if backend.available() is None]
    assert lines == [f"backend {name}: was not timed" for name in usable]
    assert not bench.missing(Report({}), Options(only="zingers"))


def test_a_slab_from_disk_to_disk_and_its_figures(tmp_path: Path) -> None:
    report = bench.run_bench(Options(size=Size(48, 4, 64), quick=True, pairs=1, only="whole slab"))
    figures = {figure.name: figure.value for _, figure in report.figures}
    assert figures["peak memory, measured"] < figures["peak memory, planned"] < 1
    assert 0 < figures["wall time outside kernels, from disk to disk"] < 1
    assert 0 < figures["wall time outside kernels, from memory to nowhere"] < 1
    names = [case.name for case in report.cases]
    assert any("OME-Zarr" in name for name in names)
    assert any("nowhere" in name for name in names)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(Options(size=Size(40, 3, 48), pairs=2), tmp_path)


def test_calls_take_turns_and_one_core_counts_by_the_cores(setting: Setting, monkeypatch: Any) -> None:
    clock = iter(range(1000))
    calls = []
    monkeypatch.setattr(runner.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Setting, "cpus", 2)
    one_core = Part(lambda *_: calls.append("one"))
    peer = Peer("other", (one_core, Part(lambda *_: calls.append("all"), one_core=False)))
    case = Case("case", lambda *_: calls.append("ours"), 3_000_000, [peer], rows=3)
    result = runner.run_case(case, setting, group="any")
    # each call takes a second of this clock: 0.5 + 1 for one row of theirs, 1/3 for each of our rows
    pair = ["one", "all", "ours"]
    assert calls == ["ours", "one", "all", "ours", *pair, *pair]
    assert result.peers[0].ratios == pytest.approx([4.5, 4.5])
    assert result.rate == pytest.approx(3 * 3 / 2)


def test_another_program_that_fails_is_named_and_ours_are_timed(setting: Setting) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no licence")

    case = Case("case", lambda *_: None, 1, [Peer("other", (Part(fail),))])
    result = runner.run_case(case, setting, group="any")
    assert result.peers[0].failed == "RuntimeError: no licence"
    assert len(result.ours_s) == 2


def test_what_we_fail_at_is_not_blamed_on_others(setting: Setting) -> None:
    calls: Iterator[int] = iter(range(9))

    def fail_late(*_: Any) -> None:
        if next(calls) > 3:
            raise BadRecipe("ours")

    case = Case("case", fail_late, 1, [Peer("other", (Part(lambda *_: None),))])
    with pytest.raises(BadRecipe):
        runner.run_case(case, setting, group="any")


def test_discs_are_where_their_projections_say() -> None:
    size = Size(200, 1, 128)
    discs, center = scene.make_discs(size.cols), scene.center_of(size.cols)
    lines = scene.line_integrals(discs, size=size, center_px=center)
    truth = scene.true_slice(discs, cols=size.cols)
    # all of the attenuation is in every projection, and its middle turns about the axis
    mass = truth.sum(dtype=np.float64)
    assert lines.sum(axis=1) == pytest.approx(np.full(200, mass), rel=1e-3)
    at = np.arange(128) - 63.5
    x, y = (truth.sum(axis=0) @ at) / mass, (truth.sum(axis=1) @ at) / mass
    angles = scene.angles_of(200)
    middle = lines @ np.arange(128) / lines.sum(axis=1)
    assert middle == pytest.approx(x * np.cos(angles) - y * np.sin(angles) + center, abs=0.01)


def test_a_scene_has_the_faults_that_it_is_corrected_for() -> None:
    found = scene.make_scene(Size(200, 2, 128))
    corrected = found.flat_field.correct(found.raw)
    spread = np.abs(corrected - found.transmission)
    assert 0 < (spread > 0.1).sum() < 20, "zingers, and nothing else"
    assert np.abs(zingers(corrected) - found.transmission).max() < 0.1
    stripes = np.abs(found.transmission / found.clean - 1).max(axis=0) > 0.01
    assert 0 < stripes.sum() < 0.1 * stripes.size
    assert found.lines().max() < 3


def test_repeated_frames_are_the_rows_again_and_again() -> None:
    data = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    frames = RepeatedFrames(data, 10)
    assert frames.shape == (2, 10, 4)
    tiled = np.tile(data, (1, 4, 1))[:, :10]
    assert np.array_equal(frames.read(), tiled)
    assert np.array_equal(frames.read((2, 9), frames=(1, 2)), tiled[1:2, 2:9])


def test_slow_source_and_sink_take_their_time() -> None:
    from xctpipe.conveyor import Block, Clock
    from xctpipe.plan import Slab

    clock, sink = Clock(), CountingSink(row_s=0.02)
    frames = RepeatedFrames(np.zeros((2, 3, 4), np.uint16), 10, row_s=0.02)
    clock.time("read", frames.read, (0, 5))
    slab = Slab((0, 5), (0, 5))
    sink.write(slab, Block("edge", np.zeros((5, 4, 4), np.float32)), clock)
    sink.finish(slab, clock)
    assert all(sink.seconds[stage] > 0.09 for stage in ("read", "write"))


def test_tables_hold_every_case_and_its_spread() -> None:
    peer = PeerResult("other", [1.0, 1.0, 1.0], [2.0, 4.0], error=0.25)
    cases = [
        CaseResult("group", "one", "slice", 8, [1.0], 3.0, 0.5, [peer]),
        CaseResult("group", "two", "slice", unavailable="not here"),
    ]
    (table,) = bench.tables(Report({}, cases))
    one, other, two = table.rows
    assert one == ("one (8 rows)", "1", "slice", "3", "0.5", "", "")
    assert other == ("  beside other", "3", "", "", "0.25", "3 [2, 4]", "2")
    assert two[:2] == ("two", "cannot be used here")
    assert any(re.search("two: not here", line) for line in bench.remarks(Report({}, cases)))


def test_tables_and_remarks_fit_a_terminal_of_100_columns() -> None:
    name = "find_center, 12 rows of a full turn, raw file to OME-Zarr (zingers + stripes_all)"
    peer = PeerResult(name, [0.00012345] * 3, [0.12345, 0.2345, 0.3456], error=0.012345, quoted="here " * 40)
    case = CaseResult("group", name, "slice", 16, [0.00012345], 1234.5, 0.012345, [peer])
    figure = bench.Figure(name, 0.123456, "GB", "a note " * 20)
    report = Report({}, [case], [("group", figure)])
    for table in bench.tables(report):
        cells = [table.columns, *table.rows]
        widths = [
            max(len(line) for cell in column for line in cell.split("\n"))
            for column in zip(*cells, strict=True)
        ]
        assert sum(widths) + 2 * len(widths) <= 100
    assert max(len(line) for text in bench.remarks(report) for line in text.split("\n")) <= 100


def test_a_size_beside_quick_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert bench.make_options("48x4x64", quick=True).size == Size(48, 4, 64)
    assert "gives way to --size" in caplog.text
    caplog.clear()
    bench.make_options(None, quick=True)
    bench.make_options("48x4x64", quick=False)
    assert not caplog.text


def test_progress_of_whole_runs_stays_off_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.run_bench(Options(size=Size(48, 4, 64), quick=True, pairs=1, only="raw file", scratch=tmp_path))
    assert "rows/s" not in capfd.readouterr().err
