"""Surfaces of the cracks, a mesh per scan in which they appeared, small enough for a page."""

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xctpipe.report.appearance import Appearance, colours, seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FACES = 48_000
_MOST_FACES_DRAWN = 12_000
_SMOOTHINGS = 4


@dataclass(frozen=True, eq=False)
class Surface:
    """What appeared in one scan."""

    number: int
    vertices_um: NDArray[np.float32]
    """(vertex, 3): z, y, x in the first scan."""
    faces: NDArray[np.int32]
    """(face, 3)"""


@dataclass(frozen=True, eq=False)
class Surfaces:
    """All of them, and the edge of the voxels that they were made from."""

    parts: tuple[Surface, ...]
    voxel_um: float

    @property
    def n_faces(self) -> int:
        """Of all parts."""
        return sum(len(part.faces) for part in self.parts)


def surfaces_of(found: Appearance, *, most_faces: int = MOST_FACES) -> Surfaces | None:
    """Surfaces of what appeared in each scan; voxels are joined by twos until there are few enough faces.

    References
    ----------
    .. [1] Lorensen & Cline, Comput. Graph. 21, 163 (1987), doi:10.1145/37402.37422
    .. [2] Taubin, Proc. SIGGRAPH 95, 351 (1995), doi:10.1145/218380.218473
    """
    numbers, start, step = found.numbers, np.asarray(found.first_um), found.voxel_um
    while numbers.any():
        parts = tuple(_surface(numbers, n, start, step) for n in seen(found))
        made = Surfaces(tuple(part for part in parts if len(part.faces)), step)
        if made.n_faces <= most_faces:
            return made
        numbers, start, step = _joined(numbers), start + step / 2, 2 * step
    return None


def _joined(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Voxels of twice the edge: the earliest of eight, so that a thin crack does not vanish."""
    odd = [(0, n % 2) for n in numbers.shape]
    late = np.pad(numbers, odd) - np.uint8(1)
    z, y, x = (n // 2 for n in late.shape)
    out: NDArray[np.uint8] = late.reshape(z, 2, y, 2, x, 2).min(axis=(1, 3, 5)) + np.uint8(1)
    return out


def _surface(numbers: NDArray[np.uint8], number: int, start: NDArray[Any], step: float) -> Surface:
    from skimage import measure

    own = numbers == number
    there = np.argwhere(own)
    if not len(there):
        return Surface(number, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    low, high = there.min(axis=0), there.max(axis=0) + 1
    box = own[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    vertices, faces, *_ = measure.marching_cubes(np.pad(box, 1).astype(np.float32), 0.5)
    placed = (_smooth(vertices, faces) - 1 + low) * step + start
    return Surface(number, placed.astype(np.float32), faces.astype(np.int32))


def _smooth(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[Any]:
    """Round off the steps of voxels, without shrinking thin sheets to nothing [2]_ of `surfaces_of`."""
    n = len(vertices)
    i, j = faces[:, [0, 1, 2, 1, 2, 0]].ravel(), faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    near = sparse.coo_matrix((np.ones(i.size), (i, j)), shape=(n, n)).tocsr()
    near.data[:] = 1
    share = sparse.diags(1 / np.maximum(near.sum(axis=1).A1, 1))
    mean = share @ near
    moved = vertices.astype(np.float64)
    for _ in range(_SMOOTHINGS):
        for weight in (0.5, -0.53):
            moved = moved + weight * (mean @ moved - moved)
    return moved


def plotly_figure(found: Appearance, made: Surfaces) -> dict[str, Any]:
    """The figure as plotly.js takes it: a mesh per scan, and a slider over the scans."""
    table = colours(found)
    names = dict(enumerate(found.scans, start=1))
    data = [
        _trace(part, _hex(table[part.number]), f"scan {names[part.number].number}") for part in made.parts
    ]
    numbers = [part.number for part in made.parts]
    steps = [
        {
            "label": str(names[last].number),
            "method": "restyle",
            "args": [{"visible": [n <= last for n in numbers]}],
        }
        for last in numbers
    ]
    axis = {"showbackground": False, "gridcolor": "#ddd", "zerolinecolor": "#ddd", "tickfont": {"size": 10}}
    layout = {
        "scene": {
            "aspectmode": "data",
            "dragmode": "turntable",
            "xaxis": {**axis, "title": {"text": "x (µm)"}},
            "yaxis": {**axis, "title": {"text": "y (µm)"}},
            "zaxis": {**axis, "title": {"text": "z (µm)"}, "autorange": "reversed"},
            "camera": {"eye": {"x": 1.35, "y": -1.75, "z": 1.0}},
        },
        "margin": {"l": 10, "r": 20, "t": 10, "b": 40},
        "showlegend": True,
        "legend": {"title": {"text": "appeared in"}, "x": 0, "y": 1, "bgcolor": "rgba(255,255,255,0.7)"},
        "font": {"family": "system-ui, sans-serif", "color": "#1a1a1a"},
        "paper_bgcolor": "#fff",
        "sliders": [
            {
                "active": len(steps) - 1,
                "currentvalue": {"prefix": "up to scan "},
                "pad": {"t": 8},
                "steps": steps,
            }
        ],
    }
    return {"data": data, "layout": layout}


def _trace(part: Surface, colour: str, name: str) -> dict[str, Any]:
    z, y, x = part.vertices_um.T
    i, j, k = part.faces.T
    arrays = {key: _packed(values) for key, values in zip("xyzijk", (x, y, z, i, j, k), strict=True)}
    light = {"ambient": 0.55, "diffuse": 0.7, "specular": 0.1, "roughness": 0.8}
    return {
        "type": "mesh3d",
        **arrays,
        "color": colour,
        "name": name,
        "showlegend": True,
        "lighting": light,
        "hovertemplate": f"{name}<br>x %{{x:.0f}}, y %{{y:.0f}}, z %{{z:.0f}} µm<extra></extra>",
    }


def _packed(values: NDArray[Any]) -> dict[str, str]:
    kind = "f4" if values.dtype.kind == "f" else "i4"
    content = np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()
    return {"dtype": kind, "bdata": base64.b64encode(content).decode()}


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def draw(found: Appearance) -> "Figure | None":
    """The same as a still picture, for print and where there is no 3-D."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    made = surfaces_of(found, most_faces=_MOST_FACES_DRAWN)
    if made is None:
        return None
    table = colours(found)
    figure = Figure(figsize=(7.4, 5.4))
    axes: Any = figure.add_axes((0.0, 0.02, 0.86, 0.98), projection="3d", computed_zorder=False)
    every = np.concatenate([part.vertices_um for part in made.parts])
    polygons = np.concatenate([part.vertices_um[part.faces] for part in made.parts])[..., ::-1]
    shade = np.concatenate([_shaded(part, table[part.number]) for part in made.parts])
    axes.add_collection3d(Poly3DCollection(polygons, facecolors=shade, edgecolors="none"))
    for name, values in zip("zyx", every.T, strict=True):
        getattr(axes, f"set_{name}lim")(values.min(), values.max() + made.voxel_um)
        axis = getattr(axes, f"{name}axis")
        axis.set_tick_params(labelsize=6)
        axis.set_label_text(f"{name} (µm)", fontsize=7)
        axis.pane.set_visible(False)
    axes.invert_zaxis()
    axes.set_box_aspect([max(float(np.ptp(values)), made.voxel_um) for values in every.T[::-1]], zoom=0.82)
    axes.view_init(elev=25, azim=-60)
    handles = [
        Patch(facecolor=_hex(table[part.number]), label=f"scan {found.scans[part.number - 1].number}")
        for part in made.parts
    ]
    figure.legend(
        handles=handles, title="appeared in", loc="upper right", fontsize=8, title_fontsize=8, frameon=False
    )
    return figure


def _shaded(part: Surface, rgb: tuple[int, int, int]) -> NDArray[Any]:
    """Colour of each face under a light from above."""
    corners = part.vertices_um[part.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = 0.55 + 0.45 * np.abs(normals @ np.array([-0.8, -0.5, 0.33]))
    shaded: NDArray[Any] = np.clip(light[:, None] * np.asarray(rgb) / 255, 0, 1)
    return shaded
