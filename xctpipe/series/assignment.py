"""Who belongs to whom, at the least cost."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def assign(costs: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """Partners at the least sum of costs, as many as can be; pairs that have no cost are none.

    Those that are linked by nothing are solved on their own, so that thousands of pores cost little.

    References
    ----------
    Crouse (2016), On implementing 2D rectangular assignment algorithms, doi:10.1109/TAES.2016.140952.
    """
    if not costs:
        return {}
    left, right = (sorted({key[side] for key in costs}) for side in (0, 1))
    rows = np.searchsorted(left, [i for i, _ in costs])
    columns = np.searchsorted(right, [j for _, j in costs])
    values = np.array(list(costs.values()))
    n = len(left) + len(right)
    graph = coo_array((np.ones(len(values)), (rows, columns + len(left))), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    chosen: dict[int, int] = {}
    order = np.argsort(group[rows], kind="stable")
    for some in np.split(order, np.flatnonzero(np.diff(group[rows][order])) + 1):
        if len(some) == 1:
            chosen[left[rows[some[0]]]] = right[columns[some[0]]]
            continue
        own_rows, own_columns = np.unique(rows[some]), np.unique(columns[some])
        never = 2.0 * (values[some].sum() + 1.0)
        matrix = np.full((len(own_rows), len(own_columns)), never)
        matrix[np.searchsorted(own_rows, rows[some]), np.searchsorted(own_columns, columns[some])] = values[
            some
        ]
        for r, c in zip(*linear_sum_assignment(matrix), strict=True):
            if matrix[r, c] < never:
                chosen[left[own_rows[r]]] = right[own_columns[c]]
    return chosen
