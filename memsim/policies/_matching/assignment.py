"""The assignment problem on small whole costs, exact. Compiled, and free of the interpreter's lock.

Shortest augmenting paths after Jonker and Volgenant, Computing 38 (1987).
"""

import numba
import numpy as np

FAR = 1 << 29  # past all costs, and twice as much is no overflow yet


@numba.njit(cache=True, nogil=True)
def assign_rows(costs, column):  # type: ignore[no-untyped-def]
    """Gives every row a column of its own, at the least cost in all.

    Args:
      costs: int32 [rows, columns], below `FAR`; at least as many columns as rows.
      column: int32 [rows], returned.

    Returns:
      int32 [columns], what a column saves by being taken, 0 or less: the dual of the problem.
    """
    columns = costs.shape[1]
    dual, owner = np.zeros(columns, np.int32), np.full(columns, -1, np.int32)
    waiting = _bid(costs, dual, owner)
    column[:] = -1
    extra = np.zeros(columns, np.int32)  # of equals, columns that nobody owns come first
    for j in range(columns):
        if owner[j] >= 0:
            column[owner[j]], extra[j] = j, 1
    distance, key = np.empty(columns, np.int32), np.empty(columns, np.int32)
    through, done = np.empty(columns, np.int32), np.empty(columns, np.int32)
    for start in waiting:
        # Dijkstra over columns, to the nearest that nobody owns
        i, behind, size = start, np.int32(0), 0
        distance[:] = FAR
        while True:
            # without branches: the compiler makes vectors of it
            for j in range(columns):
                reached = costs[i, j] - dual[j] - behind
                nearer = reached < distance[j]
                distance[j] = reached if nearer else distance[j]
                through[j] = i if nearer else through[j]
                key[j] = 2 * distance[j] + extra[j]
            end = _first_least(key)
            if owner[end] < 0:
                break
            done[size], extra[end] = end, FAR
            size += 1
            i = owner[end]
            behind = np.int32(costs[i, end] - dual[end] - distance[end])
        for j in done[:size]:
            dual[j] += distance[j] - distance[end]
            extra[j] = 1
        extra[end] = 1
        # every row of the path takes the column of the next
        while True:
            i = through[end]
            owner[end] = i
            end, column[i] = column[i], end
            if i == start:
                break
    return dual


@numba.njit(cache=True, nogil=True)
def assign_signed(costs, signs, column):  # type: ignore[no-untyped-def]
    """Gives every row a column of its own and a sign, at the least cost in all.

    Args:
      costs: int32 [rows, signs * columns], of the columns with one sign, then with the other.
      signs: 1 or 2.
      column: int32 [rows], returned, of these `signs * columns`.

    Returns:
      int32 [signs * columns], see `assign_rows`.
    """
    if signs == 1:
        return assign_rows(costs, column)
    columns = costs.shape[1] // 2
    # whichever column a row gets, it takes the sign that costs less there
    dual = assign_rows(np.minimum(costs[:, :columns], costs[:, columns:]), column)
    for i in range(column.size):
        if costs[i, columns + column[i]] < costs[i, column[i]]:
            column[i] += columns
    return np.concatenate((dual, dual))


@numba.njit(cache=True, nogil=True)
def _bid(costs, dual, owner):  # type: ignore[no-untyped-def]
    """Lets rows bid for their cheapest columns, twice; most of them get one.

    Args:
      costs: see `assign_rows`.
      dual: int32 [columns], zeros; what columns have become dearer by is returned, negative.
      owner: int32 [columns], -1; the row of each column is returned.

    Returns:
      int64, rows that got none.
    """
    rows, columns = costs.shape
    reduced = np.empty(columns, np.int32)
    waiting, left = np.arange(rows), rows
    for _ in range(2):
        k, count, left = 0, left, 0
        while k < count:
            i = waiting[k]
            k += 1
            for j in range(columns):
                reduced[j] = costs[i, j] - dual[j]
            # the cheapest column and the next
            end = _first_least(reduced)
            least = reduced[end]
            reduced[end] = FAR
            other = _first_least(reduced)
            margin = min(reduced[other], FAR - 1) - least
            if margin > 0 and columns > 1:
                dual[end] -= margin
            elif owner[end] >= 0:
                end = other
            before = owner[end]
            owner[end] = i
            if before < 0:
                continue
            # who is outbid bids again, now or in the next round
            if margin > 0:
                k -= 1
                waiting[k] = before
            else:
                waiting[left] = before
                left += 1
    return waiting[:left]


@numba.njit(cache=True, nogil=True)
def _first_least(values):  # type: ignore[no-untyped-def]
    least = values[0]
    for value in values:
        least = min(least, value)
    for j in range(values.size):
        if values[j] == least:
            return j
    return 0
