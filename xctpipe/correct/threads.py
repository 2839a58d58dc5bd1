"""Work on independent rows or frames in threads; the kernels release the interpreter lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba


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
        for done in [pool.submit(work, first, min(first + block, n)) for first in firsts]:
            done.result()
