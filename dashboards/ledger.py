"""Tables of queues, nodes, and of what was held and paid, from what the API returns. Reads, decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from .sheet import Column, Row, Sheet
from .text import configuration_text, dollars

Json = Mapping[str, Any]
_RULES = ("weight", "quota", "limit_usd_h", "limit_usd_month")


def hours(seconds: float) -> str:
    """Device hours, with enough digits to tell short runs apart."""
    value = seconds / 3600
    return f"{value:,.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def usage_table(answer: Json) -> Sheet:
    """One row a group, and the sum."""
    names = answer["by"]
    columns = (
        *(Column(name.replace("_", " "), "left") for name in names or ["all"]),
        Column("device hours"),
        Column("cost"),
    )
    rows = [Row([*(str(row[name]) for name in names), *_sums(row)], _unpriced(row)) for row in answer["rows"]]
    if names or not rows:
        rows.append(
            Row(["in all", *([""] * (len(names) - 1)), *_sums(answer["total"])], _unpriced(answer["total"]), "bold")
        )
    else:
        rows = [Row(["in all", *row.cells], row.remark) for row in rows]
    title = f"Held and paid, {answer['since']} to {answer['until']} (UTC)"
    return Sheet(columns, rows, "not in the cost", title)


def _sums(row: Json) -> list[str]:
    return [hours(row["device_s"]), dollars(row["usd"])]


def _unpriced(row: Json) -> str:
    return f"{hours(row['unpriced_s'])} device hours without a price" if row["unpriced_s"] else ""


def queues_table(answer: Json) -> Sheet:
    """Rules, what is held, what waits, what it has cost."""
    columns = (
        Column("queue", "left"),
        Column("holds", "left", 2),
        Column("$/h now", rank=3),
        Column("running"),
        Column("waiting"),
        Column("paused", rank=4),
        Column("today"),
        Column("this month"),
    )
    rows = [
        Row(
            [
                queue["name"],
                configuration_text(queue["holds"]),
                f"{queue['holds_usd_h']:.3f}",
                str(queue["running"]),
                str(queue["waiting"]),
                str(queue["paused"]),
                dollars(queue["today_usd"]),
                dollars(queue["month_usd"]),
            ],
            rules_text(queue["rules"]),
        )
        for queue in answer["queues"]
    ]
    return Sheet(columns, rows, "rules", f"Queues, {answer['day']} (UTC)")


def rules_text(rules: Json) -> str:
    """`weight 2; at most T4 x4; at most $5 an hour; at most $100 a month`."""
    parts = [] if rules.get("weight", 1.0) == 1.0 else [f"weight {rules['weight']:g}"]
    if rules.get("quota"):
        parts.append("at most " + ", ".join(f"{name} x{count}" for name, count in rules["quota"].items()))
    if rules.get("limit_usd_h") is not None:
        parts.append(f"at most ${rules['limit_usd_h']:g} an hour")
    if rules.get("limit_usd_month") is not None:
        parts.append(f"at most ${rules['limit_usd_month']:g} a month")
    others = {name: value for name, value in rules.items() if name not in _RULES}
    parts += [f"{name.replace('_', ' ')} {value:g}" for name, value in others.items() if isinstance(value, int | float)]
    return "; ".join(parts)


def nodes_table(answer: Json) -> Sheet:
    """One row a machine, with what runs on it."""
    columns = (
        Column("node", "left"),
        Column("type", "left", 2),
        Column("free / total", "left"),
        Column("$/h", rank=1),
    )
    return Sheet(columns, [_node_row(node) for node in answer["nodes"]], "runs", lead="runs ")


def _node_row(node: Json) -> Row:
    price = "-" if node["price_usd_h"] is None else f"{node['price_usd_h']:.3f}"
    kind = "head" if node["is_head"] else node["node_type"] or "-"
    cells: list[str | Text] = [
        node["name"],
        kind + (" spot" if node["market"] == "spot" else ""),
        "\n".join(f"{held['type']} {held['free']}/{held['total']}" for held in node["devices"]) or "-",
        price,
    ]
    return Row(cells, ", ".join(f"{each['id']} ({configuration_text(each['devices'])})" for each in node["workloads"]))


def rentable_lines(answer: Json) -> Iterator[str]:
    """What could be rented beside what is there."""
    for kind in answer["rentable"]:
        on_their_way = f", {kind['launching']} on their way" if kind["launching"] else ""
        not_now = f"; not to be had now: {kind['unavailable_why']}" if kind["unavailable_until_s"] else ""
        yield (
            f"can be rented: {kind['name']} ({configuration_text(kind['devices'])}) for ${kind['price_usd_h']:.3f}/h, "
            f"{kind['present']} of {kind['most']} there{on_their_way}{not_now}"
        )
    if answer["rent_cap_usd_h"] is not None:
        yield f"rented nodes cost ${answer['rented_usd_h']:.3f}/h of at most ${answer['rent_cap_usd_h']:g}/h"
    if answer["rentable"]:
        cap = "" if answer["rent_cap_usd_month"] is None else f" of at most ${answer['rent_cap_usd_month']:g}"
        saved = answer["spot_saved_month_usd"]
        spot = f"; on demand, those on spot would have cost ${saved:.2f} more" if saved > 0 else ""
        yield f"rented nodes have cost ${answer['rented_month_usd']:.2f}{cap} this month{spot}"
