"""The paragraph on methods, from the resolved recipe: a sentence and its sources for each step that ran."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xctpipe.report.wording import listed

SOURCES: dict[str, str] = {
    "10.1364/OE.26.028396": "Vo, Atwood & Drakopoulos, Opt. Express 26, 28396 (2018)",
    "10.1364/OE.418448": "Vo, Atwood, Drakopoulos & Connolley, Opt. Express 29, 17849 (2021)",
    "10.1364/OE.23.032859": "Vo, Atwood & Drakopoulos, Opt. Express 23, 32859 (2015)",
    "10.1364/OE.22.019078": "Vo et al., Opt. Express 22, 19078 (2014)",
    "10.1364/OE.23.027975": "Van Nieuwenhove et al., Opt. Express 23, 27975 (2015)",
    "10.1364/OE.24.025129": "van Aarle et al., Opt. Express 24, 25129 (2016)",
    "10.1364/OE.17.008567": "Münch, Trtik, Marone & Stampanoni, Opt. Express 17, 8567 (2009)",
    "10.1109/TASSP.1981.1163711": "Keys, IEEE Trans. Acoust. Speech Signal Process. 29, 1153 (1981)",
    "10.1046/j.1365-2818.2002.01010.x": "Paganin et al., J. Microsc. 206, 33 (2002)",
    "10.1088/2040-8986/abbab9": "Paganin et al., J. Opt. 22, 115607 (2020)",
    "10.1063/1.1149043": "Raven, Rev. Sci. Instrum. 69, 2978 (1998)",
    "10.1016/j.aml.2010.08.022": "Titarenko, Withers & Yagola, Appl. Math. Lett. 23, 1489 (2010)",
    "10.1117/12.2530324": "Vo, Atwood & Drakopoulos, Proc. SPIE 11113, 111131I (2019)",
    "10.1117/12.2596324": "Vo et al., Proc. SPIE 11840, 118400T (2021)",
    "10.1117/12.363725": "Dowd et al., Proc. SPIE 3772, 224 (1999)",
    "10.1107/S1600577514013939": "Gürsoy et al., J. Synchrotron Rad. 21, 1188 (2014)",
    "10.1073/pnas.68.9.2236": "Ramachandran & Lakshminarayanan, PNAS 68, 2236 (1971)",
    "10.1109/42.97598": "Jackson, Meyer, Nishimura & Macovski, IEEE Trans. Med. Imaging 10, 473 (1991)",
    "10.1111/j.1365-2818.2010.03408.x": "on attenuation from rows that are cut off, J. Microsc. (2010)",
    "10.1016/j.jmb.2003.07.013": "Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)",
    "10.1016/S1361-8415(98)80009-1": "Sato et al., Med. Image Anal. 2, 143 (1998)",
    "10.1023/A:1010933404324": "Breiman, Machine Learning 45, 5 (2001)",
    "10.1130/GES00569.1": "Ketcham, Geosphere 6, 499 (2010)",
    "10.1093/biomet/41.1-2.100": "Page, Biometrika 41, 100 (1954)",
    "10.1109/LSP.2001.838216": "Jackson et al., IEEE Signal Process. Lett. 12, 105 (2005)",
    "10.1287/opre.9.6.898": "Hu, Oper. Res. 9, 898 (1961)",
    "10.1145/37402.37422": "Lorensen & Cline, Comput. Graph. 21, 163 (1987)",
    "10.1107/S0567739476001873": "Kabsch, Acta Cryst. A 32, 922 (1976)",
    "10.1023/B:VISI.0000011205.11775.fd": "Baker & Matthews, Int. J. Comput. Vis. 56, 221 (2004)",
    "10.1109/IROS.2004.1389474": "Benhimane & Malis, Proc. IROS, 943 (2004)",
    "10.1080/00401706.1974.10489171": "Beaton & Tukey, Technometrics 16, 147 (1974)",
    "10.1038/nmeth.1237": "Jaqaman et al., Nat. Methods 5, 695 (2008)",
    "10.1109/TAES.2016.140952": "Crouse, IEEE Trans. Aerosp. Electron. Syst. 52, 1679 (2016)",
}
"""What is cited, by its DOI."""

_VO2018, _VO2021 = "10.1364/OE.26.028396", "10.1364/OE.418448"
_KEYS = "10.1109/TASSP.1981.1163711"
_REGISTERED = (
    "10.1107/S0567739476001873",
    "10.1023/B:VISI.0000011205.11775.fd",
    "10.1109/IROS.2004.1389474",
    "10.1080/00401706.1974.10489171",
)
_LINKED = ("10.1038/nmeth.1237", "10.1109/TAES.2016.140952")

STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "zingers": ("pixels that are bright in one frame only were replaced", (_VO2021,)),
    "blobs": ("blobs that the flat shows were interpolated across", (_VO2021,)),
    "distortion": ("radial distortion was undone", ("10.1364/OE.23.032859", _KEYS)),
    "double_flat_field": ("what is sharp along the rows of the mean projection was divided out", ()),
    "stitch_360": ("opposite projections of the full turn were joined", (_VO2021,)),
    "extend_360": ("projections were widened by what their opposites see", (_VO2021,)),
    "frame_shifts": ("frames were moved back to where they should lie", (_KEYS,)),
    "median": ("a median filter was applied", ()),
    "paganin": (
        "the phase of an object of one material was retrieved",
        ("10.1046/j.1365-2818.2002.01010.x", "10.1088/2040-8986/abbab9"),
    ),
    "stripes_sorting": ("narrow stripes were removed by sorting", (_VO2018,)),
    "stripes_partial": (
        "columns whose gain changed during the scan were levelled",
        (_VO2018, "10.1093/biomet/41.1-2.100", "10.1109/LSP.2001.838216"),
    ),
    "stripes_dead": ("columns that do not respond were interpolated", (_VO2018,)),
    "stripes_large": ("wide stripes were removed", (_VO2018,)),
    "stripes_all": ("stripes of every kind were removed", (_VO2018,)),
    "stripes_all_hex": (
        "stripes of every kind were removed with the settings of the HEX beamline",
        (_VO2018,),
    ),
    "stripes_interpolation": ("columns that stand out were interpolated", (_VO2018,)),
    "stripes_filtering": ("stripes were removed by filtering and sorting", (_VO2018,)),
    "stripes_filtering_2d": (
        "stripes were removed by a low-pass filter and sorting",
        ("10.1117/12.2530324",),
    ),
    "stripes_fitting": ("stripes were removed by fitting along the angle", (_VO2018,)),
    "stripes_fft": ("stripes were damped in the Fourier domain", ("10.1063/1.1149043",)),
    "stripes_wavelet_fft": ("stripes were damped in a wavelet decomposition", ("10.1364/OE.17.008567",)),
    "stripes_normalization": ("column means were smoothed", ()),
    "stripes_regularization": ("column offsets were found by regularisation", ("10.1016/j.aml.2010.08.022",)),
}
"""What each correction did, and the DOIs of what its docstring refers to."""

BACKENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fourier": ("direct Fourier inversion on a polar grid", ("10.1109/42.97598",)),
    "gridrec": ("gridrec", ("10.1117/12.363725", "10.1107/S1600577514013939")),
    "algotom": ("filtered back-projection by algotom", ("10.1117/12.2596324",)),
    "astra": ("the ASTRA toolbox", ("10.1364/OE.24.025129",)),
}


@dataclass(frozen=True)
class Sentence:
    """A sentence and the DOIs that it rests on."""

    text: str
    dois: tuple[str, ...] = ()


def sentences(recipe: Mapping[str, Any], *, done: frozenset[str], version: str) -> list[Sentence]:
    """The paragraph: only of what the recipe asks for and `done` says was run.

    Parameters
    ----------
    recipe : resolved, as in the run folder.
    done : stages, of `reconstruct`, `measure` and `track`.
    version : of xctpipe.
    """
    if not recipe:
        return []
    found = list(_made(recipe, version))
    if "measure" in done:
        found += _measured(recipe)
    if "track" in done:
        found += _tracked()
    return found


def _made(recipe: Mapping[str, Any], version: str) -> Iterator[Sentence]:
    raw = recipe.get("raw", {})
    given = [
        f"{raw[key]:g} {unit}"
        for key, unit in (("energy_kev", "keV"), ("pixel_um", "µm pixels"))
        if isinstance(raw.get(key), int | float)
    ]
    yield Sentence(f"Scans ({', '.join(given)}) were processed with xctpipe {version}.")
    dynamic = recipe.get("flat_field", {}).get("dynamic")
    if not raw.get("log_absorption"):
        also = " with a flat that follows the beam" if dynamic else ""
        yield Sentence(
            f"Frames were divided by flats after subtraction of darks{also}.", _DYNAMIC if dynamic else ()
        )
    for step in recipe.get("correct", []):
        yield _step(step)
    yield from _axis_and_slices(recipe)


_DYNAMIC = ("10.1364/OE.23.027975",)


def _step(step: Mapping[str, Any]) -> Sentence:
    name = str(step.get("do"))
    text, dois = STEPS.get(name, ("a step from outside xctpipe was applied", ()))
    given = ", ".join(f"{key} = {_value(value)}" for key, value in step.items() if key != "do")
    return Sentence(f"{text[0].upper()}{text[1:]} ({name}{': ' if given else ''}{given}).", dois)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _axis_and_slices(recipe: Mapping[str, Any]) -> Iterator[Sentence]:
    given = recipe.get("center", {}).get("center_px")
    if given is None:
        text = (
            "The axis of rotation was found by registration of opposite projections, by the double wedge of "
            "the sinogram's spectrum and by the sharpness of slices, on rows over the whole height."
        )
        yield Sentence(text, ("10.1364/OE.22.019078", _VO2021))
    else:
        yield Sentence(f"The axis of rotation was given: column {given:g}.")
    choice = recipe.get("reconstruct", {})
    name = str(choice.get("backend", "fourier"))
    text, dois = BACKENDS.get(name, (name, ()))
    window, padding = choice.get("filter", "ramp"), choice.get("padding", "taper")
    yield Sentence(
        f"Slices were reconstructed by {text} ({name}; filter {window}, padding {padding}).",
        (*dois, "10.1073/pnas.68.9.2236"),
    )
    if choice.get("padding") == "cylinder":
        yield Sentence("Rows were completed from the known cell.", ("10.1111/j.1365-2818.2010.03408.x",))
    phase = recipe.get("phase")
    if phase:
        text, dois = STEPS["paganin"]
        yield Sentence(f"For a second volume {text} (delta/beta {phase['delta_beta']:g}).", dois)
    yield Sentence("Resolution was estimated from the correlation of slices of alternate frames.", _HALVES)


_HALVES = ("10.1016/j.jmb.2003.07.013",)


def _measured(recipe: Mapping[str, Any]) -> Iterator[Sentence]:
    segment, measure = recipe.get("segment", {}), recipe.get("measure", {})
    limits = listed(
        [
            f"{said} {segment[key]:g} σ"
            for key, said in (("threshold_sigma", "threshold"), ("seed_sigma", "seeds"))
            if segment.get(key) is not None
        ]
    )
    yield Sentence(
        "Layers were found by their attenuation, and cracks and voids where a filter for plates and a "
        f"smoothed residual exceed the noise{f' ({limits})' if limits else ''}.",
        ("10.1016/S1361-8415(98)80009-1",),
    )
    if segment.get("classifier"):
        yield Sentence("Voxels were classified by a trained random forest.", ("10.1023/A:1010933404324",))
    mask = measure.get("mask_px")
    reach = "" if mask is None else f", up to {mask:g} voxels beyond their labels"
    yield Sentence(
        f"Volumes and openings are sums of the missing attenuation{reach}, not counts of voxels.",
        ("10.1130/GES00569.1",),
    )
    yield Sentence("Paths through a crack are those of the widest bottleneck.", ("10.1287/opre.9.6.898",))


def _tracked() -> list[Sentence]:
    return [
        Sentence(
            "Every scan was registered rigidly to the first, by the places of pores and inclusions and then "
            "by the grey values around them; what was measured was not resampled.",
            _REGISTERED,
        ),
        Sentence("Objects were tracked by the overlap of their labels, cracks as networks.", _LINKED),
        Sentence("Rates are slopes of volume against charge with their 95 % intervals."),
    ]


def citations(sentences_: list[Sentence]) -> list[str]:
    """DOIs in the order in which they are first cited."""
    return list(dict.fromkeys(doi for sentence in sentences_ for doi in sentence.dois))
