"""From a raw scan to a volume with Python calls.

python workflows/one_scan.py RAW ENERGY_KEV PIXEL_UM OUT
"""

import sys
from pathlib import Path

from xctpipe import volume
from xctpipe.prepare import volume_path
from xctpipe.recipe import make_recipe
from xctpipe.run import run


def reconstruct(raw: Path, *, energy_kev: float, pixel_um: float, out: Path) -> Path:
    recipe = make_recipe(
        {
            "name": raw.stem,
            "run_folder": str(out),
            "raw": {"folder": str(raw.resolve()), "energy_kev": energy_kev, "pixel_um": pixel_um},
        },
        base=Path.cwd(),
    )
    outcome = run(recipe)
    for name, reason in outcome.failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return volume_path(recipe.run_folder, outcome.done[0])


def main() -> None:
    raw, energy_kev, pixel_um, out = sys.argv[1:]
    path = reconstruct(Path(raw), energy_kev=float(energy_kev), pixel_um=float(pixel_um), out=Path(out))
    depth = volume.read_spec(path).shape[0]
    middle = volume.read(path, z=slice(depth // 2, depth // 2 + 1))
    print(f"{path}: middle slice between {middle.min():.2f} and {middle.max():.2f} cm^-1")


if __name__ == "__main__":
    main()
