"""Thresholds that are worth trying for a goal, the best first."""

from __future__ import annotations

from offramp.calibration.goals import Goal
from offramp.calibration.shared import best_row, shared_points, some_sets, sweep
from offramp.errors import GoalError
from offramp.search import Columns
from offramp.search.columns import TableColumns
from offramp.search.frontier import Point, between, evaluate, frontier, pareto


def candidates(table: TableColumns, goal: Goal, shared: bool) -> list[Point]:
    """What the search finds for ``max_drop`` or ``target_speedup``.

    Every point was evaluated with the scores of the exits that it has on.

    Args:
        table: the columns, in the unit of the goal.
        goal: the goal.
        shared: whether all exits that are on share one threshold.

    Raises:
        GoalError: nothing reaches the goal; the sentence names the nearest.
    """
    columns = table.on()
    points = shared_points(table.on, goal) if shared else _searched(table, goal)
    points = [p for p in points if goal.allows(p.quality, columns.static_quality, columns.static / p.cost)]
    if not points:
        raise _out_of_reach(columns, goal.value)
    return sorted(points, key=lambda p: goal.order(p.quality, columns.static / p.cost), reverse=True)


def within(columns: Columns, goal: Goal) -> list[Point]:
    """Exits that fit into ``max_cost``, each alone, so that whoever comes so far leaves there; the most accurate first.

    Args:
        columns: the columns, in the unit of the limit.
        goal: the goal.

    Raises:
        GoalError: not even the cheapest exit fits.
    """
    exits = len(columns.heads)
    alone = [tuple(0.0 if j == k else None for j in range(exits)) for k in range(exits)]
    points = [evaluate(columns, thresholds) for thresholds in (*alone, (None,) * exits)]
    fitting = [p for p in points if goal.fits(p.cost)]
    if not fitting:
        least = min(points, key=lambda p: p.cost)
        raise GoalError(
            f"no exit costs at most {goal.value:g} {goal.unit}: {_exit(points.index(least), exits)} alone costs "
            f"{least.cost:g}"
        )
    return sorted(fitting, key=lambda p: (p.quality, -p.cost), reverse=True)


def _searched(table: TableColumns, goal: Goal) -> list[Point]:
    """The frontier, what lies between its best point and the neighbour, and shared thresholds on some sets of exits.

    Where scores depend on which exits are on, the frontier is searched for each set that came up.
    """
    columns = table.on()
    points = frontier(columns)
    if table.compares:
        on = {tuple(k for k, t in enumerate(p.thresholds) if t is not None) for p in points}
        points += [p for heads in sorted(on) for p in frontier(table.on(heads), heads=heads)]
        points = pareto([_evaluated(table, p.thresholds, p.bias) for p in points])
    allowed = [p for p in points if goal.allows(p.quality, columns.static_quality, columns.static / p.cost)]
    if allowed:
        best = max(allowed, key=lambda p: goal.order(p.quality, columns.static / p.cost))
        place = points.index(best)
        # with a largest drop the neighbour that is cheaper is not allowed, with a speed-up the dearer one
        other = place - 1 if goal.name == "max_drop" else place + 1
        if 0 <= other < len(points):
            cheap, dear = sorted((points[other], best), key=lambda p: p.cost)
            points += [_evaluated(table, *numbers) for numbers in between(cheap, dear)]
    for heads in some_sets(points):
        swept = sweep(table.on(heads), heads)
        row = best_row(columns, goal, swept)
        points += [] if row is None else [swept.point(row)]
    return points


def _evaluated(table: TableColumns, thresholds: tuple[float | None, ...], bias: tuple[float, ...]) -> Point:
    on = [k for k, threshold in enumerate(thresholds) if threshold is not None]
    return evaluate(table.on(on), thresholds, bias)


def _out_of_reach(columns: Columns, value: float) -> GoalError:
    costs = [columns.costs.alone(k) for k in range(len(columns.segments))]
    least = costs.index(min(costs))
    nearest = f"{_exit(least, len(columns.heads))} alone gives {columns.static / costs[least]:.2f}"
    return GoalError(f"a speed-up of {value:g} is out of reach: {nearest}")


def _exit(k: int, exits: int) -> str:
    return "the final exit" if k == exits else "the first exit" if k == 0 else f"exit {k} (the first is 0)"
