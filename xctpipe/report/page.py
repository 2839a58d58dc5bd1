"""The page of a run: its figures and tables put into one file."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from xctpipe.csvtables import Row
from xctpipe.report import appearance, glance, listing, maps, mesh, methods, quality, sections, sentences
from xctpipe.report.drawing import NARROW_IN, WIDE_IN, image, png, save, svg, uri
from xctpipe.report.place import Placed, placed
from xctpipe.report.points import Along, along, rows_of
from xctpipe.report.source import Entry, Run, read_run
from xctpipe.runfolder import write_text
from xctpipe.segment.codes import COLOURS

log = logging.getLogger(__name__)

REPORT = "report.html"
_SAID = {"nasicon": "NASICON", "nak": "NaK", "peek": "PEEK", "o_ring": "O-ring"}


@dataclass(frozen=True, eq=False)
class Known:
    """What all parts of the page start from."""

    run: Run
    rows: Mapping[str, Row]
    along: Along
    places: Mapping[str, Placed]
    files: list[str] = field(default_factory=list)
    """Figures that were written, relative to the run folder."""


def write_report(run_folder: Path) -> Path:
    """Write RUN/report.html, and its figures as PNG and SVG into RUN/figures, from what the folder holds.

    Parameters
    ----------
    run_folder : of a run, in whatever state it is: what is not there is named in the page.

    Returns
    -------
    Path of the page. It needs no other file and no network.

    Raises
    ------
    BadRecipe
        If it is no run folder.
    UserError
        If the disk is full or the folder may not be written.
    """
    run = read_run(Path(run_folder))
    known = Known(run, rows_of(run), along(run), placed(run))
    parts = {
        name: make(known)
        for name, make in (
            ("glance", _glance),
            ("findings", _findings),
            ("sections", _sections),
            ("contact", _contact),
            ("cracks", _cracks),
            ("objects", _objects),
            ("quality", _quality),
            ("methods", _methods),
            ("provenance", _provenance),
        )
    }
    path = run.folder / REPORT
    write_text(path, render(run, {**parts, "figures": known.files}))
    return path


def render(run: Run, parts: Mapping[str, Any]) -> str:
    """The page; every text from a table or a record is escaped."""
    import jinja2

    from xctpipe import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xctpipe.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = files("xctpipe.report")
    return environment.get_template("page.html").render(
        run=run,
        version=__version__,
        style=(own / "page.css").read_text(encoding="utf-8"),
        script=(own / "page.js").read_text(encoding="utf-8"),
        plotly=_plotly() if parts["cracks"]["data"] else "",
        **parts,
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _glance(known: Known) -> dict[str, Any]:
    run = known.run
    missing = run.lacking("cycler", "series") if known.rows else ["No scan of this run has been measured."]
    if not known.rows:
        return {"missing": missing, "wide": ""}
    wide, narrow = (
        glance.draw(run, known.rows, known.along, width_in=width) for width in (WIDE_IN, NARROW_IN)
    )
    known.files.extend(save(run.folder, "glance", wide))
    return {
        "missing": missing,
        "wide": uri(svg(wide), "svg+xml"),
        "narrow": uri(svg(narrow), "svg+xml"),
        "alt": glance.described(known.rows),
        "caption": glance.said(run, known.rows, known.along),
    }


def _findings(known: Known) -> dict[str, Any]:
    gaps = [
        f"Scan {entry.number}, {entry.name}, is missing: {entry.missing}."
        for entry in known.run.scans
        if not entry.measured
    ]
    first, rest = sentences.sentences(known.run, known.rows, known.along)
    return {"sentences": first, "more": rest, "gaps": [*known.run.outdated, *gaps]}


def _sections(known: Known) -> dict[str, Any]:
    run = known.run
    cuts = sections.cuts_of(run, known.places)
    if cuts is None:
        return {"missing": ["No scan of this run has a volume."], "cards": []}
    known.files.extend(save(run.folder, "sections", sections.draw(run, cuts)))
    cards = [_card(known, entry, cuts) for entry in run.scans]
    legend = [(_SAID.get(n, n.replace("_", " ")), _css(COLOURS[n])) for n in sections.present(cuts)]
    return {
        "missing": [*_alignment(known), *([] if legend else ["No scan has labels: the greys stand alone."])],
        "cards": cards,
        "legend": legend,
        "said": cuts.said,
        "top": cuts.top_cm1,
    }


def _card(known: Known, entry: Entry, cuts: sections.Cuts) -> dict[str, Any]:
    if entry.name not in cuts.vertical:
        return _gap(entry.number, entry.name, entry.missing or "no volume")
    pairs = (("vertical", cuts.vertical), ("horizontal", cuts.horizontal))
    return {
        "title": f"{entry.number}: {entry.name}",
        "where": known.along.said(entry.name) if entry.name in known.rows else entry.missing,
        "pairs": [_layers(cut[entry.name], cuts.top_cm1, kind) for kind, cut in pairs],
    }


def _gap(number: int, name: str, why: str) -> dict[str, Any]:
    return {"title": f"{number}: {name}", "where": f"missing: {why}", "pairs": []}


def _alignment(known: Known) -> list[str]:
    hows = {name: known.places[name].how for name in known.places}
    lost = [name for name, how in hows.items() if how == "interface"]
    found = []
    if lost:
        which = "any scan" if len(lost) == len(hows) else ", ".join(lost)
        found.append(
            f"There is no registration of {which}: shown aligned by the height of the interface alone."
        )
    unknown = [name for name, how in hows.items() if not how]
    if unknown:
        found.append(f"Not aligned, as neither registration nor interface is known: {', '.join(unknown)}.")
    return found


def _layers(cut: Any, top_cm1: float, kind: str) -> dict[str, Any]:
    grey = image(sections.grey_pixels(cut, top_cm1=top_cm1), form="jpeg")
    labels = image(sections.label_pixels(cut), form="png") if cut.phases.any() else b""
    return {
        "kind": kind,
        "grey": uri(grey, "jpeg"),
        "labels": uri(labels, "png") if labels else "",
        "size": cut.grey.shape,
        "bar": _bar(cut.grey.shape[1] * cut.pixel_um),
    }


def _bar(width_um: float) -> dict[str, Any]:
    """A scale bar of a round length: text, and share of the width."""
    lengths = [step * 10.0**power for power in range(-1, 5) for step in (1, 2, 5)]
    length = max((each for each in lengths if each <= 0.3 * width_um), default=lengths[0])
    return {"text": f"{length:g} µm", "share": 100 * length / width_um}


def _css(rgb: tuple[int, int, int]) -> str:
    return "rgb({}, {}, {})".format(*rgb)


def _contact(known: Known) -> dict[str, Any]:
    run = known.run
    found = maps.contact_maps(run, known.places)
    if found:
        known.files.extend(save(run.folder, "contact", maps.draw_contact(run, found)))
    cards = []
    for entry in run.scans:
        title = f"{entry.number}: {entry.name}"
        if entry.name in found:
            cards.append(
                {"title": title, "where": _share(known.rows.get(entry.name, {})), **_map(found[entry.name])}
            )
        else:
            cards.append(_gap(entry.number, entry.name, entry.missing or "no contact map"))
    legend = [(name, _css(rgb)) for name, rgb in maps.CONTACT.items()]
    return {
        "missing": [] if found else ["No scan has a contact map."],
        "cards": cards if found else [],
        "legend": legend,
    }


def _share(row: Mapping[str, Any]) -> str:
    from xctpipe.report.wording import ranged

    ends = [row.get(f"contact_{key}frac") for key in ("", "low_", "high_")]
    return f"contact {ranged(*(None if each is None else 100 * each for each in ends))} %"


def _map(shown: maps.Map) -> dict[str, Any]:
    rows, columns = shown.pixels.shape[:2]
    return {
        "src": uri(image(shown.pixels, form="png"), "png"),
        "size": (rows, columns),
        "bar": _bar(columns * shown.pixel_um),
    }


def _cracks(known: Known) -> dict[str, Any]:
    run = known.run
    found = appearance.appearance_of(run, known.places)
    if found is None:
        return {"missing": ["No scan has labels."], "maps": [], "legend": [], "data": "", "still": ""}
    views, made = maps.propagation(found), mesh.surfaces_of(found)
    if views is None or made is None:
        return {
            "missing": ["No crack was found in any scan."],
            "maps": [],
            "legend": [],
            "data": "",
            "still": "",
        }
    still = mesh.draw(found)
    known.files.extend(save(run.folder, "propagation", maps.draw_propagation(found, views)))
    if still is not None:
        known.files.extend(save(run.folder, "cracks", still))
    table = {found.scans[n - 1]: _css(rgb) for n, rgb in appearance.colours(found).items()}
    names = ("along the axis", "from the side, along y")
    return {
        "missing": [] if found.tracked else [_UNTRACKED],
        "maps": [{"title": name, **_map(view)} for name, view in zip(names, views, strict=True)],
        "legend": [(f"{entry.number}: {entry.name}", colour) for entry, colour in table.items()],
        "data": json.dumps(mesh.plotly_figure(found, made), allow_nan=False).replace("<", "\\u003c"),
        "still": uri(png(still, dpi=130), "png") if still is not None else "",
        "faces": made.n_faces,
        "voxel": made.voxel_um,
    }


_UNTRACKED = (
    "The stage track has not been run: this is made from the crack labels of all scans, in which what is "
    "noise in one scan counts as well."
)


def _objects(known: Known) -> dict[str, Any]:
    run = known.run
    made = {
        "growth": listing.growth(run),
        "events": listing.events(run),
        "objects": listing.objects(run),
    }
    return {"missing": run.lacking("objects", "tracks", "events", "growth"), "tables": made}


def _quality(known: Known) -> dict[str, Any]:
    wide, narrow = (quality.draw(known.run, width_in=width) for width in (WIDE_IN, NARROW_IN))
    if wide is not None:
        known.files.extend(save(known.run.folder, "quality", wide))
    return {
        "wide": uri(svg(wide), "svg+xml") if wide is not None else "",
        "narrow": uri(svg(narrow), "svg+xml") if narrow is not None else "",
        "missing": known.run.lacking("scans", "registration"),
        "table": listing.quality(known.run),
        "warnings": listing.warnings(known.run),
    }


def _methods(known: Known) -> dict[str, Any]:
    run = known.run
    done = (
        {"reconstruct"} | ({"measure"} if known.rows else set()) | ({"track"} if run.has("tracks") else set())
    )
    version = str(run.record.get("versions", {}).get("xctpipe", ""))
    text = methods.sentences(run.recipe, done=frozenset(done), version=version)
    dois = methods.citations(text)
    numbers = {doi: i for i, doi in enumerate(dois, start=1)}
    return {
        "missing": [] if text else ["There is no resolved recipe in the run folder."],
        "sentences": [(each.text, [numbers[doi] for doi in each.dois]) for each in text],
        "sources": [(methods.SOURCES[doi], doi) for doi in dois],
    }


def _provenance(known: Known) -> dict[str, Any]:
    run = known.run
    path = run.folder / "recipe.toml"
    return {
        "missing": list(run.notes),
        "facts": [
            ("started", run.record.get("started")),
            ("host", run.record.get("host")),
            *run.record.get("versions", {}).items(),
        ],
        "timings": listing.timings(run),
        "inputs": listing.inputs(run),
        "recipe": path.read_text(encoding="utf-8", errors="replace") if path.exists() else "",
        "tables": sorted(run.tables),
    }
