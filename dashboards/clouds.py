"""What a rented cluster costs, and which of its nodes are there. Reads, decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.cloud_status import NodeCounts
from cluster.render import NodeCost, usd_h

from .sheet import Column, Row, Sheet
from .text import dollars

NOT_IN_IT = "Prices are the catalog's, or your own; disks and traffic are not in them."


def cost_table(costs: Sequence[NodeCost], title: str) -> Sheet:
    """One row a kind of node, and the sums, at the least and at the most of them."""
    columns = (
        Column("kind", "left"),
        Column("machine", "left", 2),
        Column("market", "left", 1),
        Column("least"),
        Column("most"),
        Column("$/h each"),
        Column("$/h least"),
        Column("$/h most"),
    )
    rows = [Row(_cost_cells(each), "" if each.usd_h is not None else "price not known") for each in costs]
    sums = [usd_h(costs, {each.name: getattr(each, name) for each in costs}) for name in ("least", "most")]
    counts = [str(sum(getattr(each, name) for each in costs)) for name in ("least", "most")]
    unknown = sums[1][1]
    remark = f"without {', '.join(unknown)}" if unknown else ""
    rows.append(Row(["in all", "", "", *counts, "", *(dollars(total) for total, _ in sums)], remark, "bold"))
    return Sheet(columns, rows, "", title, (NOT_IN_IT,))


def _cost_cells(each: NodeCost) -> list[str]:
    least, most = (None if each.usd_h is None else each.usd_h * count for count in (each.least, each.most))
    numbers = [dollars(value) for value in (each.usd_h, least, most)]
    return [each.name, each.machine, each.market, str(each.least), str(each.most), *numbers]


def status_table(costs: Sequence[NodeCost], counts: NodeCounts, title: str) -> Sheet:
    """One row a kind of node, with what it costs now; kinds that the definition does not have are told too."""
    columns = (
        Column("kind", "left"),
        Column("market", "left", 1),
        Column("there"),
        Column("coming"),
        Column("least"),
        Column("most"),
        Column("$/h each", rank=2),
        Column("$/h now"),
    )
    now, known = counts.all(), {each.name for each in costs}
    rows = []
    for each in costs:
        cost = None if each.usd_h is None else each.usd_h * now.get(each.name, 0)
        cells = [each.name, each.market, *_there(counts, each.name), str(each.least), str(each.most)]
        rows.append(
            Row([*cells, dollars(each.usd_h), dollars(cost)], "" if each.usd_h is not None else "price not known")
        )
    strange = [name for name in now if name not in known]
    rows += [Row([name, "", *_there(counts, name), "", "", "?", "?"], "not in the definition") for name in strange]
    total, unknown = usd_h(costs, now)
    both = (str(sum(counts.there.values())), str(sum(counts.coming.values())))
    remark = f"without {', '.join(unknown)}" if unknown else ""
    rows.append(Row(["in all", "", *both, "", "", "", dollars(total)], remark, "bold"))
    return Sheet(columns, rows, "", title, (NOT_IN_IT,))


def _there(counts: NodeCounts, name: str) -> tuple[str, str]:
    return str(counts.there.get(name, 0)), str(counts.coming.get(name, 0))
