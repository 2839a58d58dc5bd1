"""The report: it needs nothing else, draws in a browser, and names what is missing."""

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import EVIL, NAMES, join, make_run, write

from xctpipe.errors import BadRecipe
from xctpipe.report import listing, write_report
from xctpipe.report import points as series
from xctpipe.report.source import read_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything, and its report."""
    folder = make_run(tmp_path_factory.mktemp("whole"))
    join(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose third scan failed, measured and not followed, and its report."""
    folder = make_run(tmp_path_factory.mktemp("gapped"), failed=EVIL)
    write_report(folder)
    return folder


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.inside):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def _page(folder: Path) -> _Page:
    return _Page((folder / "report.html").read_text())


class TestPage:
    def test_it_needs_nothing_from_elsewhere(self, whole: Path) -> None:
        for tag, given in _page(whole).tags:
            for key in ("src", "srcset", "href", "data", "action", "poster"):
                text = given.get(key) or ""
                if tag == "a" or not text:
                    continue
                assert text.startswith("data:"), (tag, text[:80])
        links = [given.get("href") or "" for tag, given in _page(whole).tags if tag == "a"]
        assert all(re.match(r"#|https://doi\.org/|(tables|figures)/[a-z]+\.[a-z]+$", link) for link in links)
        beside = [link for link in links if "/" in link and not link.startswith("https")]
        assert beside
        assert all((whole / link).exists() for link in beside)

    def test_texts_are_escaped(self, whole: Path) -> None:
        text = (whole / "report.html").read_text()
        assert EVIL not in text.replace("&lt;script&gt;", "")
        assert "<script>alert" not in text
        assert f"{EVIL}</script>" in _page(whole).words
        assert "a <b> & c" in _page(whole).words
        assert "frames <i>lost</i>" not in text

    def test_it_has_language_title_and_landmarks_and_every_picture_a_text(self, whole: Path) -> None:
        shown = _page(whole).tags
        assert ("html", {"lang": "en"}) in shown
        assert {"title", "main", "header", "nav", "footer"} <= {tag for tag, _ in shown}
        assert all("alt" in given for tag, given in shown if tag == "img")
        ids = [given["id"] for _, given in shown if "id" in given]
        assert len(ids) == len(set(ids))

    def test_a_scan_that_failed_is_a_gap(self, gapped: Path) -> None:
        run = read_run(gapped)
        words = _page(gapped).words
        assert [entry.name for entry in run.scans if not entry.measured] == [EVIL]
        assert "is missing: frames <i>lost</i>." in words
        assert "4 scans, 3 measured" in words
        along = series.along(run)
        assert along.key == "time_s"
        # between its neighbours
        assert along.at["scan_2"] < along.at[EVIL] < along.at["scan_4"]

    def test_what_is_missing_is_named(self, gapped: Path) -> None:
        words = _page(gapped).words
        for name in ("cycler", "series", "registration", "tracks", "events", "growth"):
            assert f"tables/{name}.csv is not there" in words

    def test_a_series_of_one_scan(self, tmp_path: Path) -> None:
        write_report(make_run(tmp_path, names=NAMES[:1]))
        assert "1 scan, 1 measured" in _page(tmp_path).words
        assert "No crack was found in any scan." in _page(tmp_path).words

    def test_nothing_but_the_record(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text(json.dumps({"scans": {"a": {"status": "waiting"}}}))
        write_report(tmp_path)
        words = _page(tmp_path).words
        assert "Nothing has been measured yet." in words
        assert "no volume; its reconstruction is waiting" in words
        assert "recipe.toml cannot be read" in words

    @pytest.mark.usefixtures("no_pictures")
    def test_a_damaged_table_is_named_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        make_run(tmp_path)
        (tmp_path / "tables" / "growth.csv").write_text("track,kind\n1,crack,3,4\n")
        write_report(tmp_path)
        assert "a row has more or fewer cells" in _page(tmp_path).words
        assert "The cracks hold" in _page(tmp_path).words

    @pytest.mark.usefixtures("no_pictures")
    def test_tables_that_a_failed_stage_left_are_said_to_be_old(self, whole: Path, tmp_path: Path) -> None:
        assert "earlier run" not in _page(whole).words
        join(make_run(tmp_path, names=NAMES))
        (tmp_path / "series" / "track.json").write_text('{"error": "no <b>time</b>"}')
        write_report(tmp_path)
        words = _page(tmp_path).words
        assert (
            "The stage track failed (no <b>time</b>): what comes from registration.csv, tracks.csv" in words
        )
        assert "the series the stage track failed: no <b>time</b>" in words

    def test_no_run_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BadRecipe, match=r"not a run folder \(no run.json\)"):
            write_report(tmp_path)

    def test_figures_lie_beside_it(self, whole: Path) -> None:
        names = {path.name for path in (whole / "figures").iterdir()}
        kinds = ("glance", "sections", "contact", "propagation", "cracks", "quality")
        assert names == {f"{name}.{form}" for name in kinds for form in ("png", "svg")}
        assert b"<svg" in (whole / "figures" / "glance.svg").read_bytes()[:600]

    def test_the_same_folder_gives_the_same_page(self, whole: Path) -> None:
        first = (whole / "report.html").read_bytes()
        write_report(whole)
        assert (whole / "report.html").read_bytes() == first

    def test_large_tables_are_cut_and_say_so(self, tmp_path: Path) -> None:
        make_run(tmp_path)
        rows = [{"scan": "scan_1", "object": i, "kind": "pore", "volume_um3": i} for i in range(900)]
        rows.append({"scan": "scan_1", "object": 900, "kind": "crack", "volume_um3": 0.5})
        write(tmp_path, "objects", rows)
        found = listing.objects(read_run(tmp_path))
        assert (len(found.rows), found.of) == (listing.MOST_OBJECTS, 901)
        assert found.rows[0][1].text == "900"
        assert found.rows[1][1].text == "899"

    def test_only_what_was_done_is_told(self, gapped: Path, whole: Path) -> None:
        assert "stripes_all_hex: size_px = 5" in _page(gapped).words
        assert "registered rigidly" not in _page(gapped).words
        assert "registered rigidly" in _page(whole).words


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)
    if path is None:
        pytest.skip("no chromium at /usr/bin/chromium")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with api.sync_playwright() as started:
        window = started.chromium.launch(executable_path=path, args=flags)
        yield window
        window.close()


NO_WEBGL = "HTMLCanvasElement.prototype.getContext = () => null"


class TestBrowser:
    @pytest.mark.parametrize(
        "width", [pytest.param(1200, id="desktop"), pytest.param(390, id="phone", marks=pytest.mark.slow)]
    )
    def test_everything_draws_and_nothing_is_asked_of_a_network(
        self, whole: Path, browser: Any, width: int
    ) -> None:
        shown = browser.new_page(viewport={"width": width, "height": 900})
        wrong, asked = [], []
        shown.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((whole / "report.html").as_uri())
        shown.locator("#mesh-still").scroll_into_view_if_needed()
        shown.wait_for_selector("#mesh[data-drawn=yes]", timeout=60_000)
        drawn = shown.evaluate("[...document.images].map((i) => i.complete && i.naturalWidth)")
        assert len(drawn) > 10
        assert all(drawn)
        _assert_not_blank(shown.locator("#mesh").screenshot())
        wide, window = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window
        assert not wrong
        assert [url for url in asked if not url.startswith("data:")] == [(whole / "report.html").as_uri()]
        assert (whole / "report.html").stat().st_size < 20e6
        shown.close()

    def test_tables_sort_and_filter(self, whole: Path, browser: Any) -> None:
        shown = browser.new_page()
        # without the mesh, which a processor draws slowly
        shown.add_init_script(NO_WEBGL)
        shown.goto((whole / "report.html").as_uri())
        volumes = (
            "[...document.querySelectorAll('#table-objects tbody tr')].map((r) => r.cells[4].dataset.key)"
        )
        heads = shown.locator("#table-objects thead button")
        heads.nth(4).click()
        assert shown.evaluate(volumes) == ["10000.0", "20000.0", "30000.0"]
        heads.nth(4).click()
        assert shown.evaluate(volumes) == ["30000.0", "20000.0", "10000.0"]
        shown.fill("#filter", "crack scan_2")
        rows = "[...document.querySelectorAll('#table-objects tbody tr:not([hidden])')].length"
        assert shown.evaluate(rows) == 1
        shown.close()

    def test_without_webgl_a_still_picture_stands(self, whole: Path, browser: Any) -> None:
        shown = browser.new_page()
        shown.add_init_script(NO_WEBGL)
        shown.goto((whole / "report.html").as_uri())
        still = shown.locator("#mesh-still")
        still.scroll_into_view_if_needed()
        time.sleep(0.2)
        assert still.is_visible()
        assert not shown.locator("#mesh").is_visible()
        shown.close()


def _assert_not_blank(content: bytes) -> None:
    """The middle of the picture, where no legend is, holds colours."""
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(content))[..., :3]
    rows, columns = pixels.shape[:2]
    middle = pixels[rows // 5 : rows * 3 // 5, columns // 4 : columns * 3 // 4]
    coloured = np.ptp(middle, axis=2) > 0.15
    assert coloured.mean() > 0.005
