"""What `market` says of its decisions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workloads.quantities import usd_text

from ..types import Configuration, Explanation, Option, Reason, WorkloadView
from .bidding import Bidder, Offer

UNTIL_WHEN = Reason("capacity", "busy, and nothing predicts when what runs there ends")
_NAMED = 3
"""So many of the configurations that are waited for are named."""
_MINUTES_FROM_S = 600.0
_HOURS_FROM_S = 2 * 3600.0


def seconds_text(seconds: float) -> str:
    """`50 s`, `14 min`, `3.2 h`."""
    if seconds < _MINUTES_FROM_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOURS_FROM_S else f"{seconds / 3600:.1f} h"


def cheapest(option: Option) -> tuple[float, float, str]:
    """Sorts options that have a total."""
    assert option.total_usd is not None
    return option.total_usd, option.wait_s or 0.0, str(option.estimate.configuration)


def keeps(view: WorkloadView) -> Explanation:
    """It stays."""
    assert view.placement is not None
    return Explanation(view.placement.configuration, "keeps running: nothing is gained by moving it")


def moves(each: Bidder, offer: Offer) -> Explanation:
    """It goes on elsewhere."""
    before = each.offer(each.running)
    if before is not None and before.configuration == offer.configuration:
        return Explanation(
            offer.configuration, f"goes on with {offer.configuration} on other nodes", _rows(each, offer)
        )
    summary = f"moves to {offer.configuration}: {seconds_text(offer.seconds)} left there, the restart included"
    if before is not None:
        summary += f", {seconds_text(before.seconds)} where it is"
    return Explanation(offer.configuration, summary, _rows(each, offer))


def _rows(each: Bidder, chosen: Offer) -> tuple[Option, ...]:
    rows = []
    for offer in each.offers:
        if offer is chosen:
            rows.append(Option(offer.estimate, offer.money_usd))
            continue
        more = offer.money_usd - chosen.money_usd
        how = f"{usd_text(more)} dearer in all" if more > 0 else "others get more done by its devices"
        rows.append(Option(offer.estimate, offer.money_usd, reason=Reason("dearer", how)))
    return (*rows, *each.refused)


def taken(offer: Offer, options: Sequence[Option]) -> Explanation:
    """It starts, and why there."""
    best = next(option for option in options if option.estimate.configuration == offer.configuration)
    rows = tuple(_told(option if option is best else _compared(option, best)) for option in options)
    summary = f"{best.estimate.configuration} is the least money"
    if best.total_usd is not None and best.estimate.seconds is not None:
        dearer = [o for o in options if o.reason is None and o.total_usd is not None and o.total_usd < best.total_usd]
        if dearer:
            summary = f"{best.estimate.configuration} is the least money of what others leave"
        summary += f": {usd_text(best.total_usd)} with the time it takes"
        if best.congestion_usd > 0:
            summary += f" and {usd_text(best.congestion_usd)} of congestion"
    elif best.estimate.seconds is None:
        summary = f"{best.estimate.configuration} is the cheapest to try; its run time is not known yet"
    return Explanation(best.estimate.configuration, summary, rows)


def waits(
    each: Bidder,
    best: Option | None,
    options: Sequence[Option],
    before: Sequence[int],
    extra: tuple[float, Configuration] | None,
) -> Explanation:
    """It waits: for what, how long, behind whom, and what would make it start now. `before`: the priorities of those
    that wait for the same before it; `extra`: what more its time would have to be worth, and on what."""
    rows = tuple(_told(_passed_over(option, best)) for option in options)
    if best is None or best.wait_s is None:
        return Explanation(None, _stuck(options), rows)
    summary = f"waits for {best.estimate.configuration}: free in about {seconds_text(best.wait_s)}"
    if each.running is not None:
        summary = f"stops for now, others get more done by its devices: {summary}"
    if before:
        higher = sum(priority > each.view.priority for priority in before)
        summary += f", behind {len(before)} other{'s' if len(before) > 1 else ''}"
        summary += f" ({higher} of higher priority)" if higher else ""
    now = [o for o in options if o.wait_s == 0 and o.reason is None and o.total_usd is not None]
    if now and best.total_usd is not None:
        other = min(now, key=cheapest)
        assert other.total_usd is not None
        more = other.total_usd - best.total_usd
        summary += f"; would start now on {other.estimate.configuration} for {usd_text(more)} more"
    elif extra is not None:
        summary += f"; would start now on {extra[1]} if its time were worth {usd_text(extra[0])} an hour more"
    return Explanation(None, summary, rows)


def far_behind(rows: tuple[Option, ...], ahead: int) -> Explanation:
    """It waits behind so many that nobody works out until when."""
    return Explanation(None, f"waits for its turn: behind at least {ahead} others", rows)


def _compared(option: Option, best: Option) -> Option:
    if option.reason is not None or option.total_usd is None or best.total_usd is None:
        return option
    dearer = option.total_usd - best.total_usd
    if dearer < 0 and option.estimate.seconds is not None:
        return replace(option, reason=Reason("dearer", "others get more done by its devices"))
    how = f"{usd_text(dearer)} dearer in all" if dearer > 0 else "costs the same in all"
    if option.estimate.seconds is None:
        # Compared by the price of an hour, or as if it were as fast as the fastest known one.
        ours, theirs = best.estimate.price_usd_h or 0.0, option.estimate.price_usd_h or 0.0
        how = f"{usd_text(theirs - ours)} an hour dearer" if theirs > ours else "costs the same an hour"
        if best.estimate.seconds is not None:
            how = "run time not known; dearer even at the speed of the fastest"
    if option.wait_s:
        how += f", free in about {seconds_text(option.wait_s)}"
    return replace(option, reason=Reason("dearer", how))


def _told(option: Option) -> Option:
    """As it is shown: nobody can say what something costs in all whose time is not known, though it is ranked."""
    return option if option.estimate.seconds is not None else replace(option, total_usd=None)


def _stuck(options: Sequence[Option]) -> str:
    """What is waited for where nobody can say until when, or why nothing is possible."""
    reasons = {option.reason.message for option in options if option.reason is not None}
    waited = ("capacity", "quota")
    busy = [str(o.estimate.configuration) for o in options if o.reason is not None and o.reason.code in waited]
    if not busy and options and not reasons:
        return "waits: what is free is kept for others"
    if not busy:
        return "cannot run: " + ("; ".join(sorted(reasons)) or "no configuration")
    until = UNTIL_WHEN.message
    return f"waits for {' or '.join(busy[:_NAMED])}: " + "; ".join([until, *sorted(reasons - {until})])


def _passed_over(option: Option, best: Option | None) -> Option:
    """Every option with its reason: busy, or waiting for the best one is less."""
    if option.reason is not None or best is None:
        return option
    if option.wait_s:
        return replace(option, reason=Reason("capacity", f"busy: free in about {seconds_text(option.wait_s)}"))
    compared = _compared(option, best)
    return compared if compared.reason is not None else replace(option, reason=Reason("dearer", "waiting costs less"))
