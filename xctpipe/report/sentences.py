"""What happened, in sentences with numbers, from the tables."""

from collections.abc import Iterator, Mapping

from xctpipe.csvtables import Row
from xctpipe.report.glance import first_through, short_at
from xctpipe.report.points import Along
from xctpipe.report.source import Run
from xctpipe.report.wording import MM3, listed, number, ranged, scaled

_WHAT = {"crack": "cracks", "bubble": "bubbles", "void": "voids at the interface"}
_KINDS = {"crack": "crack", "crack_filled": "filled crack", "interfacial_void": "void at the interface"}
_EVENTS = {
    "merge": "objects merged",
    "split": "an object split",
    "fill": "a crack filled with metal",
    "chip": "a chip came off or moved",
    "truncation": "an object left the view",
    "shrink": "a crack became smaller",
    "percolate": "a crack came to join both electrodes",
}
_MOST_RATES = 5


def sentences(run: Run, rows: Mapping[str, Row], along: Along) -> tuple[list[str], list[str]]:
    """What to read first, and the rest; nothing is said that no table holds."""
    if not rows:
        return [], []
    rates = changing(run)
    first = {
        "crack": _leading(rates, "all_cracks") + _leading(rates, "crack"),
        "bubble": _leading(rates, "all_bubbles"),
    }
    head: list[str] = []
    for group in ("crack", "bubble"):
        head += [_rate(row) for row in first[group]]
        head += _volume_of(group, run, rows, along)
        head += _through(run, rows, along) if group == "crack" else ()
    head += _contact(run, rows, along)
    told = [row for own in first.values() for row in own]
    rest = [*_rates(run, [row for row in rates if row not in told], some=bool(rates))]
    rest += [*_volume_of("void", run, rows, along), *_events(run, along), *_balance(run, rows)]
    return head, rest


def _leading(rates: list[Row], kind: str) -> list[Row]:
    """The first of the rates of a kind; empty where none is."""
    return [row for row in rates if row["kind"] == kind][:1]


def _volume_of(group: str, run: Run, rows: Mapping[str, Row], along: Along) -> Iterator[str]:
    """How much a group holds in the first and the last scan, and at its largest between."""
    what, key = _WHAT[group], f"{group}_volume_um3"
    there = [entry.name for entry in run.measured if rows[entry.name].get(key) is not None]
    if not there:
        return
    first, last = there[0], there[-1]
    said = {name: _volume(rows[name], group) for name in there}
    most = max(there, key=lambda name: rows[name][key])
    if rows[most][key] == 0:
        yield f"No {what} were found."
    elif first == last:
        yield f"The {what} hold {said[first]}."
    else:
        text = f"The {what} hold {said[first]} at {along.said(first)} and {said[last]} at {along.said(last)}"
        between = "" if most in {first, last} else f", at most {said[most]} at {along.said(most)}"
        yield f"{text}{between}{_change(rows[first], rows[last], group)}."


def _volume(row: Row, group: str) -> str:
    value, low, high = (row.get(f"{group}_{end}_um3") for end in ("volume", "low", "high"))
    if not value and not high:
        return "nothing"
    return f"{ranged(*scaled(MM3, value, low, high))} mm³"


def _change(first: Row, last: Row, group: str) -> str:
    """Whether the intervals of two scans exclude that they hold the same."""
    ends = [row.get(f"{group}_{end}_um3") for row in (first, last) for end in ("low", "high")]
    if None in ends:
        return ""
    low, high, low_last, high_last = map(float, ends)  # type: ignore[arg-type]
    if low_last > high:
        return ": they grew"
    if high_last < low:
        return ": they became smaller"
    return ": between the two the change is within the intervals"


def changing(run: Run) -> list[Row]:
    """Rates of what changes by more than its uncertainty: all together first, then cracks, the longest."""
    known = [row for row in run.tables.get("growth", []) if _rate_of(row) is not None]
    found = [row for row in known if row.get("growing") is True or _shrinks(row)]
    return sorted(found, key=_rank)


def _rates(run: Run, rates: list[Row], *, some: bool) -> Iterator[str]:
    """The first of these rates; `some`: whether anything changes."""
    for row in rates[:_MOST_RATES]:
        yield _rate(row)
    if len(rates) > _MOST_RATES:
        yield f"{len(rates) - _MOST_RATES} more rates differ from zero: they are in tables/growth.csv."
    if not some and any(_rate_of(row) is not None for row in run.tables.get("growth", [])):
        yield "No tracked object changed by more than its uncertainty."


_RATES = (
    ("dvolume_dcharge_um3_per_mah_cm2", "low", "high", "mm³ per mAh/cm²"),
    ("dvolume_dtime_um3_per_h", "time_low", "time_high", "mm³/h"),
    ("dvolume_dscan_um3", "scan_low", "scan_high", "mm³ per scan"),
)
"""Value, ends of its interval and unit, the one to be told first; without a cycler there is no charge."""
_NO_RATE = (0.0, None, None, "")


def _rate_of(row: Row) -> tuple[float, float | None, float | None, str] | None:
    for key, low, high, unit in _RATES:
        if row.get(key) is not None:
            value, least, most = scaled(MM3, row[key], row.get(low), row.get(high))
            return value, least, most, unit
    return None


def _shrinks(row: Row) -> bool:
    high = (_rate_of(row) or _NO_RATE)[2]
    return high is not None and high < 0


def _rank(row: Row) -> tuple[bool, bool, int, float]:
    kind, rate = str(row["kind"]), (_rate_of(row) or _NO_RATE)[0]
    return (not kind.startswith("all_"), kind not in _KINDS, -int(row.get("n_scans") or 0), -abs(rate))


def _rate(row: Row) -> str:
    value, low, high, unit = _rate_of(row) or _NO_RATE
    verb = "grew"
    if value < 0:
        verb, value = "shrank", -value
        low, high = (None if each is None else -each for each in (high, low))
    rate = ranged(value, low, high)
    text = f"{_thing(row)} {verb} from {row['scan_from']} to {row['scan_to']} by {rate} {unit}"
    return f"{text}{_more(row)}."


def _thing(row: Row) -> str:
    kind = str(row["kind"])
    if kind.startswith("all_"):
        return kind.replace("_", " ").replace("voids", "voids at the interface").capitalize() + " together"
    return f"{_KINDS.get(kind, kind.replace('_', ' ')).capitalize()} {row['track']}"


def _more(row: Row) -> str:
    """Onset, front and efficiency, where they are known."""
    text = ""
    if row.get("onset_mah_cm2") is not None:
        onset = ranged(row["onset_mah_cm2"], row.get("onset_low"), row.get("onset_high"))
        text += f", with an onset at {onset} mAh/cm²"
    if row.get("front_um_per_mah_cm2") is not None and row.get("growing") is True:
        front = ranged(row["front_um_per_mah_cm2"], row.get("front_low"), row.get("front_high"))
        whose = "their" if str(row["kind"]).startswith("all_") else "its"
        text += f"; {whose} front advanced by {front} µm per mAh/cm²"
    if row.get("efficiency_frac") is not None:
        share = [None if row.get(key) is None else 100 * row[key] for key in _EFFICIENCY]
        text += f"; that is {ranged(*share)} % of the volume that the charge moved"
    return text


_EFFICIENCY = ("efficiency_frac", "efficiency_low", "efficiency_high")


def _contact(run: Run, rows: Mapping[str, Row], along: Along) -> Iterator[str]:
    there = [e.name for e in run.measured if rows[e.name].get("contact_frac") is not None]
    if not there:
        return
    said = {}
    for name in {there[0], there[-1]}:
        ends = [rows[name].get(f"contact_{key}frac") for key in ("", "low_", "high_")]
        said[name] = f"{ranged(*(None if each is None else 100 * each for each in ends))} %"
    text = f"NaK touches {said[there[0]]} of the interface at {along.said(there[0])}"
    if len(there) > 1:
        text += f" and {said[there[-1]]} at {along.said(there[-1])}"
    yield f"{text}."


def _through(run: Run, rows: Mapping[str, Row], along: Along) -> Iterator[str]:
    name, short = first_through(run, rows), short_at(run, along)
    if name:
        before = [e.name for e in run.measured if along.at[e.name] < along.at[name]]
        since = f" (the scan before it, at {along.said(before[-1])}, shows none)" if before else ""
        yield f"A crack joins both electrodes in {name}, at {along.said(name)}{since}."
    elif any(rows[e.name].get("percolates") is False for e in run.measured):
        yield "No crack joins both electrodes in any scan, as far as the resolution shows."
    if short is not None:
        yield f"The voltage dropped, as in a short, at {short:.3g} {along.unit}."


def _events(run: Run, along: Along) -> Iterator[str]:
    events = run.tables.get("events", [])
    told: dict[tuple[str, str], dict[str, int]] = {}
    for row in events:
        if row["kind"] in _EVENTS and row.get("scan_to") in along.at:
            between = (str(row.get("scan_from") or "the start"), str(row["scan_to"]))
            counts = told.setdefault(between, {})
            counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    for (first, last), counts in sorted(told.items(), key=lambda one: along.at[one[0][1]]):
        parts = [
            text + (f" ({counts[kind]} times)" if counts[kind] > 1 else "")
            for kind, text in _EVENTS.items()
            if kind in counts
        ]
        yield f"Between {first} and {last} {listed(parts)}."


def _balance(run: Run, rows: Mapping[str, Row]) -> Iterator[str]:
    there = [e.name for e in run.measured if rows[e.name].get("residual_um3") is not None]
    if there:
        row = rows[there[-1]]
        ends = [row.get(f"residual_{key}mah_cm2") for key in ("", "low_", "high_")]
        also = "" if ends[0] is None else f", which {ranged(*ends)} mAh/cm² would move"
        volume = number(*scaled(MM3, row["residual_um3"]))
        yield f"NaK in view and the charge that passed differ by {volume} mm³ in {there[-1]}{also}."
