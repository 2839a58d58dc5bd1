import tomllib
from pathlib import Path
from typing import Any

import pytest

from xctpipe import starter
from xctpipe.errors import BadRecipe
from xctpipe.recipe import make_recipe, read_recipe, sweepable, to_toml, what_matters, with_parameter

PLAIN: dict[str, Any] = {
    "name": "test",
    "run_folder": "run",
    "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3},
}


def _with(**tables: Any) -> dict[str, Any]:
    merged = {**PLAIN, **tables}
    if "raw" in tables:
        merged["raw"] = {**PLAIN["raw"], **tables["raw"]}
    return merged


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = make_recipe(PLAIN, base=tmp_path)
    assert recipe.raw.folder == tmp_path / "raw"
    assert recipe.run_folder == tmp_path / "run"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"raw": {"folder": "raw", "pixle_um": 1.0}}, ["raw.pixle_um", "did you mean 'pixel_um'"]),
        ({"recon": {}}, ["recon", "did you mean 'reconstruct'"]),
        ({"raw": {"energy_kev": "high"}}, ["raw.energy_kev", "high", "number"]),
        ({"raw": {"pixel_um": -1.3}}, ["raw.pixel_um", "-1.3", "greater than or equal to 0.001"]),
        ({"raw": {"energy_kev": 80000.0}}, ["raw.energy_kev", "80000", "less than or equal to 1000"]),
        ({"raw": {"pixel_um": float("nan")}}, ["raw.pixel_um", "nan"]),
        ({"raw": {"rows": [10, 5]}}, ["raw.rows", "first < last"]),
        ({"raw": {"start_times": ["2025-03-01T10:00:00"]}}, ["time zone"]),
        ({"correct": [{"do": "zinger"}]}, ["zinger", "did you mean 'zingers'"]),
        ({"correct": [{"size_px": 3}]}, ["needs do = NAME"]),
        ({"correct": [{"do": "stripes_sorting", "size": 3}]}, ["no parameter 'size'", "size_px"]),
        ({"correct": [{"do": "stripes_sorting", "size_px": 0}]}, ["stripes_sorting.size_px", "0"]),
        ({"correct": [{"do": "zingers", "threshold_frac": "x"}]}, ["zingers.threshold_frac", "x"]),
        ({"reconstruct": {"backend": "furier"}}, ["furier", "did you mean 'fourier'"]),
        ({"reconstruct": {"filter": "ham"}}, ["ham", "hamming"]),
        ({"reconstruct": {"padding": "tapr"}}, ["tapr", "taper"]),
        ({"volume": {"dtype": "int8"}}, ["volume.dtype", "int8"]),
        ({"volume": {"keep_bits": 40}}, ["volume.keep_bits", "40"]),
        ({"volume": {"range_cm1": [2.0, 1.0]}}, ["volume.range_cm1"]),
        ({"center": {"search_px": [9.0, 3.0]}}, ["search_px"]),
        ({"compute": {"memory_gb": 0}}, ["compute.memory_gb", "0"]),
        ({"run_folder": "raw"}, ["run_folder", "raw folder"]),
    ],
)
def test_a_wrong_recipe_is_named_with_what_is_allowed(tables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadRecipe) as info:
        make_recipe(_with(**tables), base=Path())
    for word in words:
        assert word in str(info.value)


@pytest.mark.parametrize(
    ("key", "example"), [("energy_kev", "energy_kev = 80.0"), ("pixel_um", "pixel_um = 1.3")]
)
def test_what_physics_forbids_to_guess_is_asked_for(key: str, example: str) -> None:
    raw = {k: v for k, v in PLAIN["raw"].items() if k != key}
    with pytest.raises(BadRecipe, match=f"raw.{key} is missing.*{example}"):
        make_recipe({**PLAIN, "raw": raw}, base=Path())


@pytest.mark.parametrize(
    ("content", "word"), [(b"name = ", "not valid TOML"), (b"\xff\xfe", "UTF-8"), (b"", "name is missing")]
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(BadRecipe, match=word):
        read_recipe(path)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="xctpipe init"):
        read_recipe(tmp_path / "absent.toml")


def test_the_resolved_recipe_reads_back_to_itself(tmp_path: Path) -> None:
    recipe = make_recipe(_with(center={"center_px": 12.5}, raw={"rows": [3, 9]}), base=tmp_path)
    again = make_recipe(tomllib.loads(to_toml(recipe)), base=Path("/elsewhere"))
    assert what_matters(again) == what_matters(recipe)
    assert again.chain() == recipe.chain()


def test_the_default_chain_is_what_an_absent_correct_means() -> None:
    absent = make_recipe(PLAIN, base=Path())
    written = [{"do": step.name, **step.params} for step in absent.chain()]
    assert make_recipe(_with(correct=written), base=Path()).chain() == absent.chain()
    assert make_recipe(_with(correct=[]), base=Path()).chain() == ()


def test_name_and_memory_do_not_change_the_volume() -> None:
    other = {**_with(compute={"memory_gb": 3.0}), "name": "other", "run_folder": "elsewhere"}
    assert what_matters(make_recipe(other, base=Path())) == what_matters(make_recipe(PLAIN, base=Path()))


def test_every_sweepable_parameter_can_be_set() -> None:
    recipe = make_recipe(PLAIN, base=Path())
    keys = sweepable(recipe)
    assert "center.center_px" in keys
    assert any(key.startswith("correct.") for key in keys)
    assert with_parameter(recipe, "center.center_px", 7.25).center.center_px == 7.25


def test_a_swept_step_parameter_reaches_the_step() -> None:
    recipe = make_recipe(_with(correct=[{"do": "stripes_sorting"}]), base=Path())
    assert with_parameter(recipe, "correct.stripes_sorting.size_px", 31.0).chain()[0].params["size_px"] == 31


@pytest.mark.parametrize(
    "key",
    [
        "center.centre_px",
        "nothing",
        "compute.memory_gb",
        "volume.keep_bits",
        "correct.absent.size_px",
        "correct.stripes_sorting.width",
        "raw",
    ],
)
def test_sweeping_what_is_not_there_is_refused(key: str) -> None:
    recipe = make_recipe(_with(correct=[{"do": "stripes_sorting"}]), base=Path())
    with pytest.raises(BadRecipe):
        with_parameter(recipe, key, 1.0)


def test_a_started_recipe_is_valid_once_what_is_required_is_filled_in(simulated: Any, tmp_path: Path) -> None:
    from xctpipe import formats

    folder, _ = simulated
    scans = [each for each in formats.find_scans(folder) if each.holds == "projections"]
    first = formats.open_scan(scans[0].path)

    def text(**known: float) -> str:
        return starter.recipe_text(folder, scans=scans, first=first, run_folder=Path("runs/x"), **known)

    path = tmp_path / "recipe.toml"
    path.write_text(text())
    with pytest.raises(BadRecipe, match="energy_kev is missing"):
        read_recipe(path)
    path.write_text(text(energy_kev=80.0, pixel_um=1.3))
    recipe = read_recipe(path)
    assert recipe.raw.scans == tuple(each.name for each in scans)
    uncommented = path.read_text().replace("# [[correct]]", "[[correct]]")
    assert "[[correct]]" in uncommented


def test_a_recipe_of_a_plain_editor_is_read(tmp_path: Path) -> None:
    """Byte order mark in front, one name where a list may stand."""
    raw = '[raw]\nfolder = "raw"\nscans = "scan_1"\nenergy_kev = 80\npixel_um = 1\n'
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "t"\nrun_folder = "r"\n{raw}', encoding="utf-8-sig")
    assert read_recipe(path).raw.scans == ("scan_1",)
