"""Arguments and options of the command line that several commands share, or that are long to explain."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

RawPath = Annotated[
    Path, typer.Argument(help="raw data: a folder of scans, a scan's folder, or a file", metavar="RAW")
]
RecipeFile = Annotated[Path, typer.Argument(help="the recipe, a TOML file", metavar="RECIPE")]
RunOrVolume = Annotated[
    Path, typer.Argument(help="the recipe's run_folder, or one volume (*.ome.zarr)", metavar="RUN")
]
SomeScans = Annotated[
    list[str] | None, typer.Option("--scan", help="name or glob of a scan, may be repeated; absent: all")
]
VolumeKind = Annotated[
    str | None, typer.Option("--volume", help="edge (when absent) or mass", metavar="edge|mass")
]
SomeRows = Annotated[
    str | None, typer.Option("--rows", help="detector rows A:B, B left out; absent: all", metavar="A:B")
]

ExportKind = Annotated[
    str, typer.Option("--to", help="one file for each slice, or one for each scan", metavar="tiff|hdf5")
]
ExportType = Annotated[
    str | None, typer.Option("--dtype", help="uint8, uint16 or float32; absent: that of the volume")
]
ValueRange = Annotated[
    str | None,
    typer.Option("--range", help="values in cm^-1 of 0 and of the largest integer", metavar="LOW:HIGH"),
]

BenchSize = Annotated[
    str | None,
    typer.Option(
        "--size", help="a slab of HEX is 3001x64x3200; absent: 1001x16x1024", metavar="ANGLESxROWSxCOLUMNS"
    ),
]
Stages = Annotated[
    str | None,
    typer.Option(help="reconstruct, segment, measure, track, report, separated by commas; all when absent"),
]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="small arrays, 181x16x256: half a minute; --size overrides the arrays"),
]
OnlyCases = Annotated[
    str | None, typer.Option("--only", help="cases or groups whose name begins so, or fits the glob")
]
Pairs = Annotated[
    int | None,
    typer.Option(min=1, help="how often each pair is timed; absent: up to 5 times, slow ones once"),
]
Peers = Annotated[bool, typer.Option("--peers/--no-peers", help="time other programs too")]
JsonFile = Annotated[Path, typer.Option("--json", help="where all numbers are written; replaced")]
Scratch = Annotated[
    Path | None, typer.Option(help="folder with room for raw frames and a volume; absent: the system's")
]

OpenIt = Annotated[bool, typer.Option("--open", help="open it in the browser")]
RunFolder = Annotated[Path, typer.Argument(help="the recipe's run_folder", metavar="RUN")]
RecipeOut = Annotated[Path, typer.Option("--out", "-o", help="where to write the recipe")]
FileEnergy = Annotated[float | None, typer.Option(help="photon energy, if the file has none", min=1)]
FilePixel = Annotated[float | None, typer.Option(help="pixel size, if the file has none", min=0.001)]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        help="center.center_px=START:STOP:STEP, or correct.STEP.PARAMETER=..., or a number of [segment] or "
        "[measure] on a reconstructed scan"
    ),
]
TriedBox = Annotated[
    str | None,
    typer.Option(
        "--box",
        help="voxels to label, of the level worked on; absent: about the interface, where most is seen",
        metavar="z0:z1,y0:y1,x0:x1",
    ),
]
PaintedLabels = Annotated[
    list[str],
    typer.Option(
        "--labels",
        help="labels on the level worked on: .npy, TIFF or zarr, 0 none, else the numbers of labels/phases; "
        "a path alone is of the first scan; may be repeated",
        metavar="[SCAN=]PATH",
    ),
]
ClassifierOut = Annotated[Path, typer.Option("--out", "-o", help="file to write; must not exist")]
Fresh = Annotated[bool, typer.Option("--fresh", help="discard what earlier runs made of these scans")]
_COMPARED = "a run folder, a volume, a folder of TIFF slices or an HDF5 file"
ComparedA = Annotated[Path, typer.Argument(help=_COMPARED, metavar="RUN_A")]
ComparedB = Annotated[Path, typer.Argument(help=_COMPARED, metavar="RUN_B")]
Pictures = Annotated[
    Path | None, typer.Option(help="picture (.png) or folder of pictures; absent: beside RUN_A")
]
SomeColumns = Annotated[str | None, typer.Option(help="detector columns to keep; absent: all", metavar="A:B")]

SimulatedFolder = Annotated[
    Path, typer.Argument(help="where to write raw data and truth.json", metavar="DIR")
]
Layout = Annotated[str, typer.Option(help="raw layout: hex0 to hex3, dxchange, nxtomo, cil, tiff")]
Seed = Annotated[int, typer.Option(help="same seed, same bytes")]
Photons = Annotated[float | None, typer.Option(help="photons per pixel and frame, 1 or more; 0: no noise")]
SeriesKind = Annotated[
    str, typer.Option("--series", help="plating, stripping, or control", metavar="plating|stripping|control")
]
SeriesSize = Annotated[
    str,
    typer.Option(
        help="tiny (181 x 64 x 96), small (601 x 256 x 320), or release (3001 x 3200 x 3200)",
        metavar="tiny|small|release",
    ),
]
Distance = Annotated[float | None, typer.Option(help="sample to detector, for phase contrast; absent: 0")]
CrackOpening = Annotated[
    float | None,
    typer.Option(
        help="largest opening of the crack while it is empty (P4); the filled gap under the lifted chip (P5) "
        "is 4/3 of it"
    ),
]
BubbleRadius = Annotated[
    float | None, typer.Option(help="radius of the bubble; of the growing one in the last scan")
]
Scale = Annotated[
    float | None,
    typer.Option("--scale-um", help="pixel size, the cell scales with it; absent: its real size"),
]
SimulatedRows = Annotated[int | None, typer.Option("--rows", help="detector rows; absent: as the size says")]
SimulatedAngles = Annotated[
    int | None, typer.Option("--angles", help="projections; absent: as the size says")
]
SimulatedScans = Annotated[
    str | None,
    typer.Option("--scans", help="time steps A:B from 0, B left out; absent: all", metavar="A:B"),
]


class Simulations(TyperGroup):
    """What `simulate` can write; a folder where one of them is expected gets a hint."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command named first."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            known = " or ".join(f"xctpipe simulate {name} {args[0]}" for name in self.list_commands(ctx))
            ctx.fail(f"no simulation {args[0]!r}; to write into a folder of that name: {known}")
        return super().resolve_command(ctx, args)
