"""The tables of the page on which workloads tell the order, and on what the trials cost."""

import math
from typing import Any

from scoring.analysis import costs
from scoring.analysis.analysis import Analysis
from scoring.analysis.workload_agreement import (
    NEAR,
    SUBSET,
    Agreement,
    Subset,
    WorkloadAgreement,
)
from scoring.output.page import texts
from scoring.output.page.uncertainty import Table, make_table
from scoring.output.tables import hours

SHOWN_SUBSETS = 10
TAU = "\N{GREEK SMALL LETTER TAU}"


def agreement_tables(analysis: Analysis) -> list[Table]:
    """Return the tables of workloads and of subsets of them; none where there are too few."""
    agreement = analysis.agreement
    if agreement is None:
        return []
    return [_orders(agreement), *([_subsets(agreement)] if agreement.subsets else [])]


def first_told(analysis: Analysis) -> str:
    """Return what a newcomer should run first, in a sentence; '' where that is not known."""
    agreement = analysis.agreement
    if agreement is None or agreement.cheap is None:
        return ""
    cheap = agreement.cheap
    share = cheap.core_hours / agreement.core_hours if agreement.core_hours else math.nan
    cost = "" if math.isnan(share) else f" For {share:.0%} of the cost of all workloads they give"
    cost = cost or " They give"
    return (
        f"To try an algorithm, run {', '.join(cheap.workloads)} first, in this order.{cost} the "
        f"order of the suite with {TAU} {texts.tau(cheap.with_suite.tau)}; the best {SUBSET} have "
        f"{texts.tau(agreement.subsets[0].with_suite.tau)}."
    )


def _orders(agreement: WorkloadAgreement) -> Table:
    head = [
        f"{TAU} with all others",
        "95 % of fresh competitions",
        f"{TAU} with the suite",
        "95 % of fresh competitions",
        "reach the target",
        "fastest median, s",
        "slowest, s",
        "spread",
        "core-hours",
        "the target separates little",
    ]
    rows = [
        {
            "name": one.workload,
            "cells": [
                _tau(one.with_others),
                {"text": texts.range_of(one.with_others.low, one.with_others.high)},
                _tau(one.with_suite),
                {"text": texts.range_of(one.with_suite.low, one.with_suite.high)},
                {"text": f"{one.reached} of {one.submissions}"},
                {"text": texts.count(one.fastest_s)},
                {"text": texts.count(one.slowest_s)},
                {"text": texts.factor(one.spread)},
                {"text": hours(one.core_hours)},
                {"text": one.separates},
            ],
        }
        for one in agreement.orders
    ]
    note = (
        f"Kendall's {TAU}-b of the order by a workload's credits with that of the score of all "
        "other workloads, for which it has no vote, and with that of the whole score, for which it "
        "has: 1 is the same order, 0 none, -1 the opposite one. Fresh competitions are of the same "
        "submissions and workloads; nothing is said of other submissions, or at other targets. "
        "Spread: the slowest over the fastest median of those that reach the target. A workload's "
        "held-out variants are part of it."
    )
    return make_table("Agreement by workload", note, "workload", head, rows)


def _subsets(agreement: WorkloadAgreement) -> Table:
    shown = list(agreement.subsets[:SHOWN_SUBSETS])
    if agreement.cheap is not None and agreement.cheap not in shown:
        shown.append(agreement.cheap)
    head = [
        f"{TAU} with the suite",
        "95 % of fresh competitions",
        f"{TAU} with the others",
        "core-hours",
        "none is better in",
        "which",
    ]
    rows = [
        {
            "name": ", ".join(one.workloads),
            "cells": [
                _tau(one.with_suite),
                {"text": texts.range_of(one.with_suite.low, one.with_suite.high)},
                _tau(one.with_others),
                {"text": hours(one.core_hours)},
                {"text": texts.probability(one.stays_best)},
                {"text": _which(one, agreement)},
            ],
        }
        for one in shown
    ]
    note = (
        f"The {SUBSET} workloads whose own score gives the order of the suite best, of "
        f"{len(agreement.subsets)} subsets; of equal ones the cheaper first. The best of so many "
        "looks better than it is, so beside it stands the share of fresh competitions in which no "
        f"other subset is better. Cheapest: the least core-hours with a {TAU} at most {NEAR:g} "
        "below the best."
    )
    return make_table(f"Subsets of {SUBSET} workloads", note, "workloads", head, rows)


def _which(subset: Subset, agreement: WorkloadAgreement) -> str:
    names = [("best", agreement.best), ("cheapest", agreement.cheap)]
    return ", ".join(name for name, one in names if one is subset)


def _tau(agreement: Agreement) -> dict[str, Any]:
    """Return a cell shaded by an agreement."""
    if math.isnan(agreement.tau):
        return {"text": texts.NONE}
    side = "over" if agreement.tau >= 0 else "under"
    return {
        "text": texts.tau(agreement.tau),
        "side": side,
        "tint": f"{50 * abs(agreement.tau):.0f}",
    }


def cost_table(analysis: Analysis) -> Table | None:
    """Return the table of core-hours by workload and submission; None where none are recorded."""
    every = costs.total(analysis.costs)
    if math.isnan(every.core_hours):
        return None
    cells = {(one.workload, one.label): one for one in analysis.costs}
    by_name = costs.by_workload(analysis.costs)
    labels = analysis.board.labels
    rows = [
        {
            "name": name,
            "cells": [
                *_sums(one),
                *({"text": hours(cells[name, label].core_hours)} for label in labels),
            ],
        }
        for name, one in by_name.items()
    ]
    sums = [
        costs.total([one for one in analysis.costs if one.label == label]).core_hours
        for label in labels
    ]
    rows.append(
        {"name": "all", "cells": [*_sums(every), *({"text": hours(each)} for each in sums)]}
    )
    note = (
        "Hours from the beginning of a trial to its end, with set-up and evaluations, times the "
        "cores that it had. A trial that was outrun, or late, would have gone on to its budget at "
        "most, at its own pace: that is the full grid, an upper limit. Trials that were set aside "
        "and run again are not counted."
    )
    if every.unknown:
        note += f" {texts.plural(every.unknown, 'trial')} without a recorded time not counted."
    head = ["all submissions", "full grid, at most", "trials", "ended early", *labels]
    return make_table("Core-hours", note, "workload", head, rows)


def _sums(one: costs.Cost) -> list[dict[str, Any]]:
    texts_of = (hours(one.core_hours), hours(one.full_core_hours), one.trials, one.ended_early)
    return [{"text": str(text)} for text in texts_of]
