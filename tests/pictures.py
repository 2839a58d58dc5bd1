"""Figures that are made and not drawn, which is most of the time of a small run."""

from pathlib import Path
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

CONTENT = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(16),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
}


def leave_out(patch: pytest.MonkeyPatch) -> None:
    """From now on each figure is saved as a file without a picture."""

    def savefig(self: Figure, where: Path | str | IO[bytes], *, format: str = "", **_: Any) -> None:
        content = CONTENT[format or Path(str(where)).suffix[1:]]
        if isinstance(where, Path | str):
            Path(where).write_bytes(content)
        else:
            where.write(content)

    patch.setattr(Figure, "savefig", savefig)


def leave_out_of_reports(patch: pytest.MonkeyPatch) -> None:
    """From now on figures of a report are not drawn; others are."""
    for kind, content in CONTENT.items():
        for module in ("drawing", "page"):
            patch.setattr(f"xctpipe.report.{module}.{kind}", lambda *_, content=content, **__: content)
