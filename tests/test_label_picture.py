"""The picture of labels: what it shows, in which colours, and what it does without."""

from pathlib import Path

import numpy as np
import pytest

from xctpipe.label_picture import (
    PICTURE,
    Section,
    Sections,
    draw,
    places,
    scale_bar,
    subject_of,
    tinted,
)
from xctpipe.segment.codes import COLOURS, PHASES


def _section(*, rows: int = 20, columns: int = 30) -> Section:
    phases = np.full((rows, columns), PHASES["nasicon"], np.uint8)
    phases[:5] = PHASES["nak"]
    phases[8:10, 10:20] = PHASES["crack"]
    phases[:, :2] = 0
    grey = np.where(phases == PHASES["nasicon"], 2.3, 0.2).astype(np.float32)
    return Section(grey, phases, 10.0)


def _sections(*, contact: bool = True) -> Sections:
    horizontal = _section(rows=30)
    return Sections(
        title="scan_00001: crack 1",
        vertical=_section(),
        horizontal=horizontal,
        along="y",
        row=9,
        column=12,
        top_cm1=3.0,
        contact=np.arange(900, dtype=np.uint8).reshape(30, 30) % 4 if contact else None,
        contact_title="contact 93.0 %",
        contact_um=10.0,
    )


class TestSubject:
    def test_a_small_crack_goes_before_a_large_bubble_and_the_larger_crack_first(self) -> None:
        rows = [
            {"object": 1, "kind": "bubble", "volume_um3": 9.0},
            {"object": 2, "kind": "crack", "volume_um3": 1.0},
            {"object": 3, "kind": "crack_filled", "volume_um3": 2.0},
            {"object": 4, "kind": "pore", "volume_um3": 99.0},
        ]
        assert subject_of(rows)["object"] == 3
        assert subject_of(rows[:1] + rows[3:])["object"] == 1

    def test_what_misses_nothing_is_judged_by_its_voxels(self) -> None:
        rows = [
            {"object": 1, "kind": "chip", "volume_um3": None, "count_volume_um3": 1.0},
            {"object": 2, "kind": "chip", "volume_um3": None, "count_volume_um3": 2.0},
        ]
        assert subject_of(rows)["object"] == 2

    def test_none_where_nothing_was_found(self) -> None:
        assert subject_of([]) is None


class TestColours:
    def test_objects_have_their_colour_and_what_is_beyond_the_view_is_white(self) -> None:
        image = tinted(_section(), top_cm1=3.0)
        crack = image[9, 15]
        assert np.abs(crack - np.array(COLOURS["crack"]) / 255).max() < 0.2
        assert (image[:, :2] == 1.0).all()
        assert image.min() >= 0
        assert image.max() <= 1

    def test_greys_can_still_be_told_under_layers(self) -> None:
        section = _section()
        dark, bright = (
            tinted(Section(np.full_like(section.grey, value), section.phases, 1.0), top_cm1=3.0)[15, 15].sum()
            for value in (0.5, 2.5)
        )
        assert bright - dark > 0.5

    def test_what_is_not_a_number_is_drawn_dark(self) -> None:
        section = _section()
        hole = section.grey.copy()
        hole[15, 15] = np.nan
        image = tinted(Section(hole, section.phases, 1.0), top_cm1=3.0)
        assert np.isfinite(image).all()


class TestFigure:
    def test_four_panels_a_legend_of_what_is_there_and_bars_in_um(self) -> None:
        figure = draw(_sections())
        letters = [axis.get_title(loc="left") for axis in figure.axes]
        assert [letter for letter in letters if letter] == ["a", "b", "c", "d"]
        said = [text.get_text() for text in figure.legends[0].get_texts()]
        assert said == ["NASICON", "NaK", "crack"]
        bars = [t.get_text() for a in figure.axes for t in a.texts if t.get_text().endswith("µm")]
        assert bars == ["50 µm"] * 4

    def test_without_an_interface_that_is_said(self) -> None:
        figure = draw(_sections(contact=False))
        texts = [text.get_text() for axis in figure.axes for text in axis.texts]
        assert "the interface is not in view" in texts

    @pytest.mark.parametrize(
        ("pixel_um", "said", "length_px"), [(1.3, "20 µm", 15.385), (43.3, "1000 µm", 23.09)]
    )
    def test_a_scale_bar_is_as_long_as_it_says(self, pixel_um: float, said: str, length_px: float) -> None:
        from matplotlib.figure import Figure

        axis = Figure().subplots()
        axis.imshow(np.zeros((80, 80)))
        scale_bar(axis, pixel_um)
        assert axis.texts[0].get_text() == said
        x = axis.lines[0].get_xdata()
        assert x[1] - x[0] == pytest.approx(length_px, rel=1e-3)


def test_what_is_there_is_named_and_nothing_else(tmp_path: Path) -> None:
    assert places(tmp_path, ["a"]) == []
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "objects.csv").touch()
    for name in "ab":
        (tmp_path / "scans" / name).mkdir(parents=True)
    (tmp_path / "scans" / "a" / PICTURE).touch()
    tables, picture = places(tmp_path, ["a", "b"])
    assert tables.endswith("objects.csv")
    assert picture == f"picture: {tmp_path / 'scans' / 'a' / PICTURE}"
    (tmp_path / "scans" / "b" / PICTURE).touch()
    assert places(tmp_path, ["a", "b"])[1].endswith(f"*/{PICTURE}: 2")
