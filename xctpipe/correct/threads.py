"""Work on independent rows or frames in threads; the kernels release the interpreter lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from xctpipe.scan import FloatArray


def in_threads(work: Callable[[int, int], None], n: int, *, block: int = 1) -> None:
    """Call `work(first, last)` for consecutive blocks of range(n), as many at once as numba has threads.

    Each call must write to its own part of the result only, so that the order never matters.
    """
    firsts = range(0, n, block)
    n_threads = min(int(numba.get_num_threads()), len(firsts))
    if n_threads <= 1:
        for first in firsts:
            work(first, min(first + block, n))
        return
    with ThreadPoolExecutor(n_threads) as pool:
        blocks = [pool.submit(work, first, min(first + block, n)) for first in firsts]
        try:
            for done in blocks:
                done.result()
        except BaseException:
            # an error, or Ctrl-C, does not wait for blocks that have not begun
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def each_row(slab: FloatArray, correct: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """A new slab of `correct(sinogram)` of every row, in threads; a sinogram is a contiguous (angle, col).

    It is a copy, so that `correct` may write into it and no sum depends on how the slab was cut.
    """
    out = np.empty(slab.shape, np.float32)

    def rows(first: int, last: int) -> None:
        for row in range(first, last):
            out[:, row] = correct(slab[:, row].astype(np.float32, order="C"))

    in_threads(rows, slab.shape[1])
    return out
