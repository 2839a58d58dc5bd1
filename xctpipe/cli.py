"""The command line; the only place that prints, and that turns failures into messages and exit codes."""

import json
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from xctpipe import __version__, arguments, screen
from xctpipe.errors import BadRecipe, BadScan, UserError
from xctpipe.interrupts import heard_interrupts
from xctpipe.messages import start_log

DONE, BUG, WRONG_CALL, SCANS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="xctpipe",
    help="From raw tomography frames to calibrated volumes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
simulated = typer.Typer(cls=arguments.Simulations, help="Raw data of a simulated cell.", no_args_is_help=True)
app.add_typer(simulated, name="simulate")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xctpipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


@app.command()
def inspect(path: arguments.RawPath) -> None:
    """Say what raw data hold, and what is wrong with them."""
    from xctpipe import formats

    found = formats.find_scans(path)
    within = formats.RawOptions(folder=path if path.is_dir() else path.parent)
    unusable = 0
    for each in found:
        if each.holds != "projections":
            what = "darks and flats" if each.holds == "dark_flat" else f"cannot be read: {each.problem}"
            print(f"{each.name} ({each.layout}): {what}")
            unusable += each.holds is None
            continue
        try:
            scan = formats.open_scan(each.path, options=within)
        except BadScan as err:
            print(f"{each.name}: {err}")
            unusable += 1
            continue
        print(formats.describe(scan))
        unusable += bool(scan.errors)
    if unusable:
        raise typer.Exit(SCANS_FAILED)


@app.command()
def init(
    folder: arguments.RawPath,
    out: arguments.RecipeOut = Path("recipe.toml"),
    energy_kev: arguments.FileEnergy = None,
    pixel_um: arguments.FilePixel = None,
    force: Annotated[bool, typer.Option("--force", help="replace the recipe when it exists")] = False,
) -> None:
    """Write a commented recipe for raw data."""
    from xctpipe import starter

    said, problem = starter.write(folder, out=out, energy_kev=energy_kev, pixel_um=pixel_um, force=force)
    print("\n".join(said))
    if problem:
        raise BadScan(problem)


@app.command()
def plan(recipe_file: arguments.RecipeFile) -> None:
    """Show slabs, memory, disk and time of a run; reads no frame."""
    from xctpipe import forecast
    from xctpipe.recipe import read_recipe

    print("\n".join(forecast.lines(read_recipe(recipe_file))))


@app.command("try")
def try_(
    recipe_file: arguments.RecipeFile,
    sweep: arguments.Sweep = None,
    rows: Annotated[str | None, typer.Option(help="rows to reconstruct, e.g. 100,200; absent: three")] = None,
    scan: Annotated[str | None, typer.Option(help="name of the scan; absent: the first")] = None,
    box: arguments.TriedBox = None,
) -> None:
    """Try a number of the recipe: slices with it swept, or labels and measures of a box of a volume."""
    from xctpipe import tryout
    from xctpipe.machine import set_threads
    from xctpipe.recipe import read_recipe

    recipe = read_recipe(recipe_file)
    set_threads()
    answer = tryout.answer(recipe, tryout.Wish(tuple(sweep or ()), rows, scan, box))
    if answer.table:
        screen.print_table(*answer.table, plain_width=100)
    print("\n".join(answer.lines))


@app.command()
def run(
    recipe_file: arguments.RecipeFile,
    stages: arguments.Stages = None,
    scheduler: Annotated[str | None, typer.Option(help="an existing dask scheduler, tcp://host:port")] = None,
    fresh: arguments.Fresh = False,
) -> None:
    """Run a recipe; repeat it after any interruption, finished slabs are kept."""
    from xctpipe.label_picture import places
    from xctpipe.recipe import read_recipe
    from xctpipe.run import run as run_recipe

    recipe = read_recipe(recipe_file)
    start_log(recipe.run_folder)
    wanted = stages.split(",") if stages else None
    outcome = run_recipe(recipe, stages=wanted, scheduler=scheduler, fresh=fresh)
    for line in places(recipe.run_folder, outcome.done):
        print(line)
    print(f"{len(outcome.done)} scan(s) done; results in {recipe.run_folder}")
    if outcome.failed:
        print(f"failed: {', '.join(outcome.failed)}; why is said above and in log.txt there")
        raise typer.Exit(SCANS_FAILED)


@app.command()
def train(
    recipe_file: arguments.RecipeFile,
    labels: arguments.PaintedLabels,
    out: arguments.ClassifierOut = Path("classifier.npz"),
    seed: Annotated[int, typer.Option(help="same seed and labels, same classifier")] = 0,
) -> None:
    """Train the optional classifier of voxels from a few painted labels; needs scikit-learn."""
    from xctpipe.machine import set_threads
    from xctpipe.recipe import read_recipe
    from xctpipe.training import train_for

    recipe = read_recipe(recipe_file)
    set_threads()
    print("\n".join(train_for(recipe, labels, out=out, seed=seed)))


@app.command()
def status(run_folder: arguments.RunFolder) -> None:
    """Show what is done, what runs, what failed and why."""
    from xctpipe.status import status as read_status

    rows = [(scan.name, scan.state, scan.slabs_of, scan.detail) for scan in read_status(run_folder)]
    screen.print_table(("scan", "state", "slabs", "detail"), rows, plain_width=100)


@app.command()
def report(run_folder: arguments.RunFolder, show: arguments.OpenIt = False) -> None:
    """Write the report of a run anew, from what is in its folder: one page that needs nothing else."""
    from xctpipe.report import write_report

    path = write_report(run_folder)
    print(f"report: {path}")
    if show:
        typer.launch(str(path))


@app.command()
def view(run_folder: arguments.RunFolder) -> None:
    """Look at a run in napari: the series with labels, tables and time."""
    from xctpipe.viewer import show

    show(run_folder)


@app.command()
def export(  # noqa: PLR0913 - the options of a command are its arguments
    run_folder: arguments.RunOrVolume,
    to: arguments.ExportKind,
    dtype: arguments.ExportType = None,
    value_range: arguments.ValueRange = None,
    scan: arguments.SomeScans = None,
    kind: arguments.VolumeKind = None,
    level: Annotated[int, typer.Option(help="of the volume: 0 is full resolution, 1 half of it, ...")] = 0,
    rows: arguments.SomeRows = None,
    out: Annotated[Path | None, typer.Option(help="folder to write to; absent: RUN/export/...")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace other exports that are there")] = False,
) -> None:
    """Write volumes as TIFF slices or HDF5, as floats or as integers of a range you give."""
    from xctpipe import export as exporting
    from xctpipe import spans, stacks

    wish = exporting.Wish(
        to=to,
        dtype=dtype,
        range_cm1=spans.parse_range(value_range, option="--range") if value_range else None,
        level=level,
        rows=spans.parse_span(rows, option="--rows") if rows else None,
        force=force,
    )
    found, unfinished = stacks.find(run_folder, kind=kind, scans=scan or ())
    for each in exporting.write(exporting.plan(found, wish, out=out), force=force):
        print("\n".join(exporting.describe(each)))
    if unfinished:
        print(f"not finished, left out: {'; '.join(unfinished)}")
        raise typer.Exit(SCANS_FAILED)


@app.command()
def compare(
    a: arguments.ComparedA,
    b: arguments.ComparedB,
    scan: arguments.SomeScans = None,
    rows: arguments.SomeRows = None,
    kind: arguments.VolumeKind = None,
    png: arguments.Pictures = None,
    as_json: Annotated[bool, typer.Option("--json", help="print numbers as JSON")] = False,
) -> None:
    """Say how two reconstructions differ, in numbers, settings and a picture."""
    from xctpipe import compare_labels, side_by_side, spans, true_labels

    wanted = spans.parse_span(rows, option="--rows") if rows else None
    found_labels = None
    if compare_labels.applies(a, b):
        if true_labels.is_cell(b) and (rows or kind or png):
            raise BadRecipe(
                "--rows, --volume and --png: are for two reconstructions, not for a simulated cell"
            )
        found_labels = compare_labels.compare_labels(a, b, scans=scan or ())
        if true_labels.is_cell(b):
            screen.print_labels(a, b, found_labels, as_json=as_json)
            if found_labels.failed:
                raise typer.Exit(SCANS_FAILED)
            return
    result = side_by_side.compare_all(a, b, kind=kind, scans=scan or (), rows=wanted, png=png)
    if as_json:
        labels = {"labels": found_labels.as_json()} if found_labels else {}
        print(json.dumps({**result.as_json(), **labels}, indent=1))
    else:
        for found, picture in result.done:
            screen.print_table((found.scan, "A", "B"), side_by_side.table(found), plain_width=240)
            print("\n".join([*side_by_side.lines(found), f"picture: {picture}", ""]))
        print("\n".join(result.notes), end="\n" if result.notes else "")
        if found_labels:
            screen.print_labels(a, b, found_labels, as_json=False)
    if result.failed:
        print("\n".join(f"error: {text}" for text in result.failed), file=sys.stderr)
        raise typer.Exit(SCANS_FAILED)


@app.command()
def shrink(
    raw: Annotated[Path, typer.Argument(help="a scan's folder or file", metavar="RAW")],
    out: Annotated[Path, typer.Argument(help="what to make; must not exist", metavar="OUT")],
    rows: Annotated[str, typer.Option(help="detector rows to keep, B left out", metavar="A:B")],
    every: Annotated[int, typer.Option(help="keep every n-th projection", metavar="N")],
    columns: arguments.SomeColumns = None,
) -> None:
    """Write a small valid copy of a raw scan in its own layout, for bug reports and tests."""
    from xctpipe import formats, spans
    from xctpipe import shrink as shrinking

    cut = shrinking.Cut(
        spans.parse_span(rows, option="--rows"),
        every,
        spans.parse_span(columns, option="--columns") if columns else None,
    )
    made = shrinking.shrink(raw, out, cut=cut)
    print(formats.describe(made.copy))
    print("\n".join(f"NOTE      {note}" for note in made.notes), end="\n" if made.notes else "")
    print(f"size      {made.copy_bytes / 1e6:.3g} MB of {made.original_bytes / 1e6:.3g} MB")
    print(f"made by   {shrinking.command_line(raw, out, cut)}")


@simulated.command("scan")
def simulate_scan(
    folder: arguments.SimulatedFolder,
    layout: arguments.Layout = "hex1",
    size: Annotated[str, typer.Option(help="mini, tiny (181 x 64 x 96) or small (601 x 256 x 320)")] = "tiny",
    seed: arguments.Seed = 0,
    photons: arguments.Photons = None,
    full_view: Annotated[bool, typer.Option("--full-view", help="the whole cell is inside the view")] = False,
) -> None:
    """Write the raw frames of one scan of a cell, with the truth beside them."""
    from xctpipe.simulated_scan import write_simulated

    path = write_simulated(folder, layout=layout, size=size, seed=seed, photons=photons, full_view=full_view)
    truth = folder / "truth.json"
    print(f"{path}: simulated scan; truth in {truth}; next: xctpipe init {shlex.quote(str(path))}")


@simulated.command("cell")
def simulate_cell(  # noqa: PLR0913 - the options of a command are its arguments
    folder: arguments.SimulatedFolder,
    series: arguments.SeriesKind = "plating",
    size: arguments.SeriesSize = "tiny",
    seed: arguments.Seed = 0,
    layout: arguments.Layout = "hex1",
    photons: arguments.Photons = None,
    distance_mm: arguments.Distance = None,
    crack_opening_um: arguments.CrackOpening = None,
    bubble_radius_um: arguments.BubbleRadius = None,
    scale_um: arguments.Scale = None,
    rows: arguments.SimulatedRows = None,
    angles: arguments.SimulatedAngles = None,
    scans: arguments.SimulatedScans = None,
) -> None:
    """Write the raw scans of a cell that changes with charge, the truth, a recipe and a picture of them."""
    from xctpipe import simulated_cell

    shape = simulated_cell.Shape(rows, angles, scans)
    wish = simulated_cell.Wish(photons, distance_mm, crack_opening_um, bubble_radius_um, scale_um, shape)
    made = simulated_cell.write(folder, wish, series=series, size=size, seed=seed, layout=layout)
    print("\n".join(made))


@app.command("demo")
def demo_(
    folder: Annotated[Path, typer.Argument(help="where to work", metavar="[DIR]")] = Path("xctpipe-demo"),
    size: Annotated[str, typer.Option(help="small, or tiny (less sure of small things)")] = "small",
    scans: arguments.SimulatedScans = None,
) -> None:
    """Simulate a series in the HEX layout, run everything, and print measured beside true."""
    from xctpipe import demo

    result = demo.run_demo(folder, size=size, scans=scans)
    rows = [(line.what, line.scan, line.true, line.measured, line.unit) for line in result.lines]
    screen.print_table(("what", "scan", "true", "measured (95 %)", "unit"), rows, plain_width=110)
    print(
        "The true contact counts voids of any size, the measured one those above the limit of interface.csv."
    )
    print(f"tables: {result.folder / 'tables'}")
    print(f"report: {result.report}: open it in any browser")
    print(f"series: pip install -e '.[view]', then xctpipe view {shlex.quote(str(result.folder))}")


@app.command("bench")
def bench_(
    size: arguments.BenchSize = None,
    quick: arguments.Quick = False,
    only: arguments.OnlyCases = None,
    pairs: arguments.Pairs = None,
    peers: arguments.Peers = True,
    json_file: arguments.JsonFile = Path("bench.json"),
    scratch: arguments.Scratch = None,
) -> None:
    """Time every stage on this machine, beside algotom and what else is installed."""
    from xctpipe import bench

    options = bench.make_options(size, quick=quick, only=only, pairs=pairs, peers=peers, scratch=scratch)
    bench.check_target(json_file)
    report = bench.run_bench(options)
    for found in bench.tables(report):
        screen.print_table(found.columns, found.rows, plain_width=100, title=found.title)
        print()
    print("\n".join(bench.remarks(report)))
    bench.write(report, json_file)
    print(f"all numbers: {json_file}")
    missing = bench.missing(report, options)
    if missing:
        print("\n".join(f"error: {text}" for text in missing), file=sys.stderr)
        raise typer.Exit(SCANS_FAILED)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    start_log()
    try:
        with heard_interrupts():
            app(args=arguments)
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return WRONG_CALL if isinstance(err, BadRecipe) else SCANS_FAILED
    except SystemExit as end:  # how typer ends, also after a wrong call
        if end.code == INTERRUPTED:
            print("interrupted; repeat the command to go on where it stopped", file=sys.stderr)
        return end.code if isinstance(end.code, int) else DONE
    except Exception:  # anything else is a bug, and the traceback is what its report needs
        traceback.print_exc()
        print(f"this is a bug in xctpipe {__version__}; please report it", file=sys.stderr)
        return BUG
    return DONE


def entry() -> None:
    """Console script."""
    sys.exit(main())
