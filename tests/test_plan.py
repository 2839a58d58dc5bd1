import pytest
from hypothesis import given
from hypothesis import strategies as st

from xctpipe.errors import BadRecipe
from xctpipe.plan import Extent, cut, make_plan, peak_bytes

HEX = Extent(
    n_angles=3001, n_rows=3200, n_cols=3200, raw_itemsize=2, halo_rows=0, align_rows=8, recon_bytes=2 * 10**9
)


@given(st.integers(1, 5000), st.integers(1, 200), st.integers(0, 40))
def test_slabs_tile_the_rows_exactly(n_rows: int, slab_rows: int, halo_rows: int) -> None:
    slabs = cut(n_rows, slab_rows=slab_rows, halo_rows=halo_rows)
    assert [row for slab in slabs for row in range(*slab.rows)] == list(range(n_rows))
    for slab in slabs:
        assert slab.rows[0] - slab.read[0] == min(halo_rows, slab.rows[0])
        assert slab.read[1] - slab.rows[1] == min(halo_rows, n_rows - slab.rows[1])


@given(st.integers(1, 400), st.integers(1, 64), st.floats(0.8, 64))
def test_a_plan_fits_the_memory_or_is_refused(n_rows: int, n_cols: int, memory_gb: float) -> None:
    extent = Extent(3001, n_rows, 50 * n_cols, 2, 3, 8, 10**8)
    memory = int(memory_gb * 1e9)
    lowest = min(8, n_rows)
    if peak_bytes(extent, slab_rows=lowest) > memory:
        with pytest.raises(BadRecipe, match="memory_gb"):
            make_plan(extent, memory_bytes=memory)
        return
    plan = make_plan(extent, memory_bytes=memory)
    assert plan.peak_bytes == peak_bytes(extent, slab_rows=plan.slab_rows) <= memory
    assert plan.slab_rows % 8 == 0 or plan.slab_rows == n_rows


def test_more_memory_gives_taller_slabs_up_to_the_limit() -> None:
    heights = [make_plan(HEX, memory_bytes=gb * 10**9).slab_rows for gb in (4, 6, 8, 16, 64)]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1] == 64


def test_a_hex_scan_goes_through_eight_gigabytes() -> None:
    assert make_plan(HEX, memory_bytes=8 * 10**9).slab_rows >= 16


def test_the_memory_named_in_a_refusal_is_enough() -> None:
    with pytest.raises(BadRecipe, match=r"raise compute\.memory_gb to at least") as info:
        make_plan(HEX, memory_bytes=10**9)
    needed = float(str(info.value).split("at least ")[1].split(",")[0])
    assert make_plan(HEX, memory_bytes=int(needed * 1e9)).slab_rows == 8


def test_a_continued_run_keeps_its_slab_height() -> None:
    assert make_plan(HEX, memory_bytes=64 * 10**9, slab_rows=16).slab_rows == 16


def test_arithmetic_beyond_32_bits() -> None:
    assert HEX.raw_bytes == 61_460_480_000
    assert (
        sum(slab.rows[1] - slab.rows[0] for slab in cut(3 * 10**9, slab_rows=10**9, halo_rows=0)) == 3 * 10**9
    )
