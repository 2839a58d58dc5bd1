from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from xctpipe import inputs, tryout
from xctpipe.errors import BadRecipe
from xctpipe.recipe import Recipe

Make = Callable[..., Recipe]


def _scan(recipe: Recipe) -> Any:
    (found,) = inputs.find(recipe.raw)
    return inputs.open_one(recipe.raw, found)


def test_the_sharpest_axis_is_the_true_one(make: Make, simulated: tuple[Path, dict[str, Any]]) -> None:
    recipe, true = make(), simulated[1]["center_px"]
    sweep = tryout.Sweep("center.center_px", tuple(true + d for d in (-2.0, -1.0, 0.0, 1.0, 2.0)))
    tried = tryout.try_slices(_scan(recipe), recipe, rows=(10, 40, 55), sweep=sweep)
    assert tried.best == pytest.approx(true)


def test_a_stack_carries_the_values_that_were_used(make: Make, tmp_path: Path) -> None:
    recipe = make(correct=[{"do": "stripes_sorting"}])
    sweep = tryout.parse_sweep("correct.stripes_sorting.size_px=5:25:10")
    tried = tryout.try_slices(_scan(recipe), recipe, rows=(10, 50), sweep=sweep)
    assert tried.slices.shape == (3, 2, 96, 96)
    paths = tryout.save(tried, tmp_path / "out")
    assert {path.name for path in paths} == {"slices.tif", "slices.png", "metric.csv", "metric.png"}
    with tifffile.TiffFile(tmp_path / "out" / "slices.tif") as file:
        labels = file.imagej_metadata["Labels"]
        np.testing.assert_array_equal(file.asarray().reshape(tried.slices.shape), tried.slices)
    assert labels[0] == "correct.stripes_sorting.size_px = 5, row 10"
    assert labels[-1] == "correct.stripes_sorting.size_px = 25, row 50"
    assert not np.array_equal(tried.slices[0], tried.slices[2])


def test_without_a_sweep_it_shows_the_recipe_as_it_is(make: Make, tmp_path: Path) -> None:
    recipe = make()
    scan = _scan(recipe)
    tried = tryout.try_slices(scan, recipe, rows=tryout.choose_rows(scan, None), sweep=None)
    assert len(tried.rows) == 3
    assert {path.name for path in tryout.save(tried, tmp_path)} == {"slices.tif", "slices.png"}


@pytest.mark.parametrize(
    ("text", "values"),
    [("a=1:2:0.5", (1.0, 1.5, 2.0)), ("a=3:1:-1", (3.0, 2.0, 1.0)), ("a=0.1:0.3:0.1", (0.1, 0.2, 0.3))],
)
def test_a_sweep_includes_its_stop(text: str, values: tuple[float, ...]) -> None:
    assert tryout.parse_sweep(text).values == values


def test_a_row_outside(make: Make) -> None:
    with pytest.raises(BadRecipe, match="row 64"):
        tryout.choose_rows(_scan(make()), [64])
