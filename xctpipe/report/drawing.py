"""Figures as files and as parts of a page."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from xctpipe.runfolder import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_IN, NARROW_IN = 7.4, 3.7
"""Of figures on a page, and on a phone."""
DPI = 200


def svg(figure: "Figure") -> bytes:
    """A figure as SVG, the same bytes for the same figure."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "xctpipe"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def png(figure: "Figure", *, dpi: int = DPI) -> bytes:
    """A figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def image(pixels: NDArray[Any], *, form: str) -> bytes:
    """Pixels (row, column) or (row, column, 3 or 4), uint8, as `jpeg` or `png`."""
    from matplotlib.image import imsave

    content = io.BytesIO()
    options = {"quality": 82, "optimize": True} if form == "jpeg" else {"optimize": True}
    shown = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=2)
    imsave(content, shown, format=form, pil_kwargs=options)
    return content.getvalue()


def uri(content: bytes, form: str) -> str:
    """A file as part of a page: `form` is svg+xml, png or jpeg."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def save(folder: Path, name: str, figure: "Figure") -> tuple[str, ...]:
    """Write a figure as PNG and SVG into RUN/figures; names relative to the run folder."""
    paths = (f"figures/{name}.png", f"figures/{name}.svg")
    (folder / "figures").mkdir(exist_ok=True)
    write_bytes(folder / paths[0], png(figure))
    write_bytes(folder / paths[1], svg(figure))
    return paths


def unit_colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """A colour from 0 to 1."""
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255


def plain(axes: "Axes") -> None:
    """Axes without a box, with faint lines across."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
