"""Who gets what: one configuration (or none, to wait) for every job, so that the summed cost is least and no device
type is over-asked. Pure numpy, deterministic.

`allocate` turns what is known of the jobs into costs and has them minimised. A job's cost is its remaining time over
its own base time, to a power below one: doubling the speed of a slow job is worth more than of a fast one. Jobs with
little left weigh more (heSRPT: Berg, Vesilo, Harchol-Balter 2020). A change costs the seconds that the restart loses,
and is judged by the time until the next likely change; what was never tried is judged a little better than predicted.

The problem is a multiple-choice knapsack with one capacity per device type. Its Lagrangian dual gives the congestion
prices: what one device of a type is worth, in the unit of the costs. `solve` climbs the dual, rounds the choices to
whole configurations, fills what is left and swaps; the dual's value is a lower bound, so every answer knows how far it
can be from the best.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WAIT = -1
"""The choice of a job that gets nothing."""
_CLIMB_ROUNDS = 120
_SAMPLED_FROM = 1500
_SAMPLE_STRIDE = 8
_LOOKED_BELOW = 0.8
"""Of the prices that a climb begins with: lower ones are hardly met."""
_STALE_ROUNDS = 12
_LEAST_CLIMBED = 1e-4, 8
"""A climb of many jobs ends when it rose by less than this share in so many rounds: whole ones are farther off."""
_CLOSE = 1e-3
_SWAP_PAIRS = 400_000
_SWAP_ROUNDS = 40
_SWAP_JOBS = 1000
"""With more jobs than this a pair matters too little to be searched for."""
_ENOUGH = 1e-3
"""Of many, an answer within this share of the bound is not bettered from another start."""
_LEAST_GAIN = 1e-12
_LOOKED_AT = 256
_LEAST_KEPT = 0.2


@dataclass(frozen=True)
class Rules:
    """What the costs are made of. The defaults are what did best on the published workloads."""

    exponent: float = 0.35
    """Of the normalised remaining time."""
    rank_power: float = 1.0
    """Weight of a job by its place among n, the longest first: (place / n) to this power."""
    waiting: float = 1.1
    """Cost of waiting, where running on the base configuration costs 1."""
    least_gain: float = 1.03
    """A change must be faster by this factor."""
    restart_charge: float = 1.5
    """Seconds added to a changed configuration's time, per second of restart."""
    restart_delay: float = 0.1
    """Cost of one restart that takes as long as the median job has left: it delays others too."""
    stopping: float = 3.0
    """Cost of stopping a running job, in restarts: it must start again, and may be stopped again before it has."""
    optimism: float = 1.2
    """How much faster than predicted an untried configuration is taken to be, per doubling of what was tried."""
    device: float = 0.01
    """What a second of one device is worth in seconds of a job: more leaves devices idle rather than badly used."""


@dataclass(frozen=True)
class Demand:
    """What is known of the jobs; J jobs, C configurations."""

    seconds: Floats
    """J x C: remaining seconds if run there from now on, restart not counted; inf: impossible."""
    base_s: Floats
    """J: what times are measured against, positive: remaining seconds on the slowest single device."""
    current: Ints
    """J: configuration it runs on, or `WAIT`."""
    restart_s: Floats
    """J: what a restart loses."""
    starting_s: Floats
    """J: what the current start still takes."""
    stay_s: Floats
    """J x C: how long a placement there is likely to last."""
    doublings: Floats
    """J x C: how often the largest tried count must be doubled to get there; 0: tried, or smaller."""
    weight: Floats
    """J: priority; 1 for all if there is none."""
    pinned: Flags
    """J: keeps its current configuration."""
    overdue: Flags
    """J: has waited too long; it waits no longer unless others of its kind hold what it needs."""


@dataclass(frozen=True)
class Solution:
    """One choice per job, and what is known of how good it is."""

    choice: Ints
    """Index of the configuration per job, or `WAIT`."""
    prices: Floats
    """Congestion price of one device per type, in the unit of the costs."""
    cost: float
    """The sum that was minimised."""
    bound: float
    """No assignment costs less."""


@dataclass(frozen=True)
class Allocation:
    """A solution with the costs that led to it: what an explanation shows."""

    solution: Solution
    cost: Floats
    """J x C: cost of each configuration, congestion not included."""
    waiting: Floats
    """J: cost of waiting; inf where it must not."""
    congestion: Floats
    """C: price of the devices that each configuration holds."""


def allocate(
    demand: Demand, use: Ints, supply: Ints, rules: Rules | None = None, prices: Floats | None = None
) -> Allocation:
    """The choice of least cost for these jobs. `use`: configurations x types; `supply`: per type; `prices`: of the last
    allocation, as a start."""
    rules = rules or Rules()
    cost, waiting = costs(demand, use, rules)
    solution = solve(cost, waiting, use, supply, prices)
    return Allocation(solution, cost, waiting, use @ solution.prices)


def costs(demand: Demand, use: Ints, rules: Rules) -> tuple[Floats, Floats]:
    """Cost per job and configuration, and of waiting per job. Pinned jobs have one configuration."""
    configurations = len(use)
    weight = demand.weight * rank_weights(demand.base_s, rules.rank_power)
    running = demand.current != WAIT
    stays = np.arange(configurations)[None, :] == demand.current[:, None]
    hopeful = demand.seconds / rules.optimism**demand.doublings
    kept = np.clip(1.0 - demand.restart_s[:, None] / demand.stay_s, _LEAST_KEPT, 1.0)
    moved = np.where(running[:, None], hopeful * rules.least_gain / kept, hopeful)
    moved = moved + np.where(running, rules.restart_charge, 1.0)[:, None] * demand.restart_s[:, None]
    seconds = np.where(stays, demand.seconds + demand.starting_s[:, None], moved)
    seconds = seconds * ((1.0 + rules.device * use.sum(axis=1)) / (1.0 + rules.device))[None, :]
    cost = weight[:, None] * (seconds / demand.base_s[:, None]) ** rules.exponent
    least = demand.seconds.min(axis=1, initial=np.inf)
    delay = np.zeros(len(weight))
    if np.isfinite(least).any():
        delay = rules.restart_delay * demand.restart_s / max(float(np.median(least[np.isfinite(least)])), 1.0)
        cost = cost + np.where(running[:, None] & ~stays, delay[:, None], 0.0)
    cost = np.where(np.isfinite(demand.seconds) & (stays | ~(demand.pinned & running)[:, None]), cost, np.inf)
    wait = weight * rules.waiting + np.where(running, rules.stopping * delay, 0.0)
    waiting = np.where((demand.pinned & running) | demand.overdue, np.inf, wait)
    return cost, waiting


def expected_stay_s(
    held_s: npt.ArrayLike, changes: npt.ArrayLike, prior_s: float = 1500.0, prior_changes: float = 6.0
) -> Floats:
    """How long a placement is likely to last: seconds held per change seen, with a prior worth so many changes. Time
    held by placements that ended without a change, or go on, counts too."""
    held, seen = np.asarray(held_s, dtype=float), np.asarray(changes, dtype=float)
    return np.asarray((prior_s * prior_changes + held) / (prior_changes + seen))


def rank_weights(seconds: Floats, power: float) -> Floats:
    """(place / n) ** power, the longest first; jobs of equal length weigh the same."""
    if len(seconds) == 0:
        return np.zeros(0)
    place = len(seconds) - np.searchsorted(np.sort(seconds), seconds, side="left")
    return np.asarray((place / len(seconds)) ** power)


def solve(
    cost: Floats,
    waiting: Floats,
    use: Ints,
    supply: Ints,
    prices: Floats | None = None,
    incumbent: Ints | None = None,
) -> Solution:
    """The assignment of least cost. `cost` is jobs x configurations (inf: impossible), `waiting` the cost of no
    configuration per job, `use` configurations x types, `supply` per type. `prices` of an earlier, similar problem make
    it faster. The answer is no worse than what the `incumbent` choices (`WAIT`: none) come to.

    A job whose waiting is inf waits only where its smallest configuration does not fit beside the other such jobs,
    earlier rows first."""
    if len(cost) == 0:
        kept = np.zeros(len(supply)) if prices is None else np.asarray(prices, dtype=float)
        return Solution(np.zeros(0, dtype=np.int64), kept, 0.0, 0.0)
    problem = _Problem(cost, waiting, use, supply)
    climbed = _climb(problem, prices)
    answers = [_rounded(problem, climbed.market.choice(climbed.best), climbed.best)]
    close = abs(climbed.bound) * _ENOUGH if len(cost) > _SWAP_JOBS else 0.0
    for at, start in _other_starts(problem, climbed, incumbent):
        if answers[0][0] - climbed.bound > close:  # or what can be gained is not worth the search
            answers.append(_rounded(problem, start, at))
    choice = min(answers, key=lambda answer: answer[0])[1]
    _swap(problem, choice, climbed.best, climbed.bound)
    if _insist(problem, choice):
        _fill(problem, choice)
    chosen = np.where(choice == cost.shape[1], WAIT, choice)
    return Solution(chosen, climbed.best, problem.value(choice), climbed.bound)


def _other_starts(problem: _Problem, climbed: _Climbed, incumbent: Ints | None) -> list[tuple[Floats, Ints]]:
    """Prices and choices to begin with, beside the cheapest ones at the best prices."""
    found = [] if (climbed.last == climbed.best).all() else [(climbed.last, climbed.market.choice(climbed.last))]
    if incumbent is not None and (incumbent != WAIT).any():
        nothing = problem.cost.shape[1] - 1
        held = np.where(incumbent == WAIT, nothing, incumbent)
        possible = np.isfinite(problem.cost[problem.rows, held])
        found.append((climbed.best, np.where(possible, held, nothing)))
    return found


def _rounded(problem: _Problem, choice: Ints, prices: Floats) -> tuple[float, Ints]:
    """Choices that fit, with nothing left free that somebody would have, and what they cost."""
    _repair(problem, choice, prices)
    _fill(problem, choice)
    return problem.value(choice), choice


class _Problem:
    """The costs with waiting as the last column."""

    def __init__(self, cost: Floats, waiting: Floats, use: Ints, supply: Ints) -> None:
        fits = (use <= supply).all(axis=1)
        self.cost = np.empty((cost.shape[0], cost.shape[1] + 1))
        self.cost[:, :-1] = cost
        self.cost[:, :-1][:, ~fits] = np.inf
        self.cost[:, -1] = waiting
        self.forced = ~np.isfinite(waiting)
        if self.forced.any():
            dearest = np.abs(np.where(np.isfinite(self.cost[:, :-1]), self.cost[:, :-1], 0.0)).max(axis=1, initial=0.0)
            ceiling = 4.0 * float(dearest.sum() + np.abs(waiting[~self.forced]).sum()) + 1.0
            self.cost[self.forced, -1] = ceiling
        self.use = np.vstack([use, np.zeros((1, use.shape[1]), dtype=use.dtype)]).astype(float)
        self.supply = np.asarray(supply, dtype=float)
        self.rows = np.arange(len(cost))

    def sample(self, stride: int) -> _Problem:
        """Every so many jobs, and their share of the devices."""
        part = copy.copy(self)
        part.cost, part.forced = self.cost[::stride], self.forced[::stride]
        part.rows = np.arange(len(part.cost))
        part.supply = self.supply * (len(part.cost) / len(self.cost))
        return part

    def held(self, choice: Ints) -> Floats:
        """Devices per type that the choices take."""
        return np.asarray(np.bincount(choice, minlength=len(self.use)) @ self.use)

    def value(self, choice: Ints) -> float:
        """The summed cost."""
        return float(self.cost[self.rows, choice].sum())


class _Market:
    """What is cheapest for every job at prices that change little. Who waits at the lowest prices looked at waits
    at all higher ones, and is left out: of a long queue that is most."""

    def __init__(self, problem: _Problem) -> None:
        self.problem = problem
        self._lowest = np.full(len(problem.supply), np.inf)
        self._open: Ints = problem.rows
        self._cost: Floats = problem.cost
        self._waiting = 0.0

    def _look(self, prices: Floats) -> None:
        """Find out who waits at these prices, and all higher ones."""
        problem = self.problem
        if len(problem.rows) < _SAMPLED_FROM:
            self._lowest = np.zeros(len(prices))
            return
        self._lowest = prices * _LOOKED_BELOW
        priced = problem.cost + problem.use @ self._lowest
        waits = problem.cost[:, -1] < priced[:, :-1].min(axis=1, initial=np.inf)
        self._open = np.flatnonzero(~waits)
        self._cost = problem.cost[self._open]
        self._waiting = float(problem.cost[waits, -1].sum())

    def ask(self, prices: Floats) -> tuple[float, Floats]:
        """What all pay at these prices, and the devices per type that they take."""
        choice, priced = self._cheapest(prices)
        held = np.bincount(choice, minlength=len(self.problem.use))
        return float(priced.sum()) + self._waiting, np.asarray(held @ self.problem.use)

    def choice(self, prices: Floats) -> Ints:
        """Per job the cheapest choice at these prices."""
        choice = self._cheapest(prices)[0]
        found = np.full(len(self.problem.rows), len(self.problem.use) - 1)
        found[self._open] = choice
        return found

    def _cheapest(self, prices: Floats) -> tuple[Ints, Floats]:
        if (prices < self._lowest).any():
            self._look(prices)
        priced = self._cost + self.problem.use @ prices
        choice = priced.argmin(axis=1)
        return choice, priced[self.problem.rows[: len(choice)], choice]


@dataclass
class _Climbed:
    best: Floats
    last: Floats
    bound: float
    market: _Market


def _climb(problem: _Problem, start: Floats | None) -> _Climbed:
    """Prices of (nearly) the largest dual value: each price goes on while its type stays over-asked (or idle), and
    turns with half the step once that changes. Many jobs start from the prices of every eighth of them."""
    if start is None and len(problem.rows) >= _SAMPLED_FROM:
        start = _climb(problem.sample(_SAMPLE_STRIDE), None).best
    scale = _price_scale(problem)
    prices = np.zeros(len(problem.supply)) if start is None else np.maximum(0.0, np.asarray(start, dtype=float))
    step = scale * (0.25 if start is None else 0.02)
    before, many = np.zeros(len(prices)), len(problem.rows) > _SWAP_JOBS
    best, bound, stale, market = prices, -np.inf, 0, _Market(problem)
    least_gain, rounds = _LEAST_CLIMBED if many else (1e-9, _STALE_ROUNDS)
    counted = bound
    for _ in range(_CLIMB_ROUNDS):
        paid, held = market.ask(prices)
        dual = paid - float(prices @ problem.supply)
        stale += 1
        if dual > counted + least_gain * abs(counted):
            stale = 0
        if dual > bound:
            best, bound = prices, dual
        counted = bound if not many or stale == 0 or counted == -np.inf else counted
        excess = held - problem.supply
        toward = np.sign(excess)
        toward[(prices <= 0) & (excess < 0)] = 0
        if not toward.any() or (step[toward != 0] < _CLOSE * scale[toward != 0]).all() or stale > rounds:
            break
        turned = toward * before < 0
        step = np.where(turned, step * 0.5, np.where(toward * before > 0, np.minimum(step * 1.5, scale), step))
        before = np.where(toward != 0, toward, before)
        prices = np.maximum(0.0, prices + step * toward)
    return _Climbed(best, prices, bound, market)


def _price_scale(problem: _Problem) -> Floats:
    """A price per type at which a typical job would rather do without it."""
    options = problem.cost[:, :-1]
    without = problem.cost[:, -1]
    if problem.forced.any():
        worst = np.where(np.isfinite(options), options, -np.inf).max(axis=1, initial=-np.inf)
        without = np.where(problem.forced, worst, without)
    scale = np.full(len(problem.supply), 1e-9)
    for kind in range(len(scale)):
        uses = np.flatnonzero(problem.use[:-1, kind])
        if len(uses):
            worth = (without[:, None] - options[:, uses]) / problem.use[uses, kind]
            top = np.where(np.isfinite(worth), worth, 0.0).max(axis=1)
            scale[kind] = max(float(top[top > 0].mean()) if (top > 0).any() else 0.0, 1e-9)
    return scale


def _repair(problem: _Problem, choice: Ints, prices: Floats) -> None:
    """Move jobs off over-asked types, those first that lose least per device released. Nothing is moved to where it
    would not fit, so what is over-asked shrinks with every move."""
    use, held = problem.use, problem.held(choice)
    priced = use @ prices
    for _ in range(len(choice) + 1):
        if not (over := held - problem.supply).max() > 0:
            return
        kind = int(np.argmax(over / np.maximum(problem.supply, 1)))
        asked = np.flatnonzero(use[choice, kind] > 0)
        now = choice[asked]
        released = use[:, None, kind] - use[None, :, kind]
        open_ = (released > 0) & _fits(use, np.maximum(-over, 0.0))
        toll = np.where(open_, priced[None, :] - priced[:, None], np.inf)
        lost = (problem.cost[asked] - problem.cost[asked, now][:, None] + toll[now]) / np.maximum(released, 1.0)[now]
        to = lost.argmin(axis=1)
        for row in np.argsort(lost[np.arange(len(asked)), to], kind="stable"):
            delta = use[to[row]] - use[now[row]]
            if held[kind] <= problem.supply[kind]:
                break
            if ((delta <= 0) | (held + delta <= problem.supply)).all():
                held += delta
                choice[asked[row]] = to[row]


def _fits(use: Floats, free: Floats) -> npt.NDArray[np.bool_]:
    """Whether a job can change from one configuration (row) to another (column) with so much free."""
    allowed = np.ones((len(use), len(use)), dtype=bool)
    for kind, left in enumerate(free):
        more = use[None, :, kind] - use[:, None, kind]
        allowed &= (more <= left) | (more <= 0)
    return allowed


def _fill(problem: _Problem, choice: Ints) -> None:
    """Give what is free to those who gain most per share of it."""
    use = problem.use
    free = problem.supply - problem.held(choice)
    moved = True
    while moved:
        moved = False
        share = np.zeros((len(use), len(use)))
        for kind, left in enumerate(free):
            share = np.maximum(share, (use[None, :, kind] - use[:, None, kind]) / max(left, 1.0))
        to, top = _best_gains(problem, choice, np.where(_fits(use, free), 1.0 / np.maximum(share, 1e-3), 0.0))
        gainers = np.flatnonzero(top > _LEAST_GAIN)
        gainers = gainers[np.argsort(-top[gainers], kind="stable")]
        begin, some = 0, _LOOKED_AT
        while begin < len(gainers):
            jobs = gainers[begin : begin + some]
            more = use[to[jobs]] - use[choice[jobs]]
            may = np.flatnonzero(((more <= 0) | (more <= free)).all(axis=1))  # what is free only shrinks
            for job, delta in zip(jobs[may], more[may], strict=True):
                if ((delta <= 0) | (delta <= free)).all():
                    free -= delta
                    choice[job] = to[job]
                    moved = True
            begin, some = begin + some, _LOOKED_AT if len(may) else 4 * some


def _best_gains(problem: _Problem, choice: Ints, rate: Floats) -> tuple[Ints, Floats]:
    """Per job the change that gains most, and how much that is, 0 where nothing does. `rate`: what counts of a gain by
    the change from one configuration (row) to another (column), 0 where it is not possible."""
    to, top = choice.copy(), np.zeros(len(choice))
    for now in np.flatnonzero(np.bincount(choice, minlength=len(rate))).tolist():
        open_ = np.flatnonzero(rate[now] > 0)
        jobs = np.flatnonzero(choice == now)
        gain = (problem.cost[jobs, now][:, None] - problem.cost[jobs[:, None], open_]) * rate[now, open_]
        best = gain.argmax(axis=1)
        to[jobs], top[jobs] = open_[best], gain[problem.rows[: len(jobs)], best]
    return to, top


def _swap(problem: _Problem, choice: Ints, prices: Floats, bound: float) -> None:
    """Change two jobs at once where that is cheaper. Only options that the dual leaves open are looked at: one whose
    regret at the prices exceeds the gap can be in no better answer."""
    for _ in range(_SWAP_ROUNDS if len(choice) <= _SWAP_JOBS else 0):
        gap = problem.value(choice) - bound
        if gap <= 1e-9 * max(1.0, abs(bound)):
            return
        priced = problem.cost + problem.use @ prices
        regret = priced - priced.min(axis=1, keepdims=True)
        open_ = (regret <= gap) & (np.arange(priced.shape[1])[None, :] != choice[:, None])
        job, option = np.nonzero(open_)
        if len(job) == 0:
            return
        if len(job) ** 2 > _SWAP_PAIRS:
            nearest = np.sort(np.argsort(regret[job, option], kind="stable")[: int(_SWAP_PAIRS**0.5)])
            job, option = job[nearest], option[nearest]
        saved = problem.cost[job, choice[job]] - problem.cost[job, option]
        need = problem.use[option] - problem.use[choice[job]]
        free = problem.supply - problem.held(choice)
        both = saved[:, None] + saved[None, :]
        fits = job[:, None] != job[None, :]
        for kind in range(len(free)):
            fits &= need[:, None, kind] + need[None, :, kind] <= free[kind]
        both = np.where(fits, both, -np.inf)
        alone = np.where((need <= free).all(axis=1), saved, -np.inf)
        first, second = np.unravel_index(int(both.argmax()), both.shape)
        single = int(alone.argmax())
        if max(both[first, second], alone[single]) <= 1e-12:
            return
        if alone[single] >= both[first, second]:
            choice[job[single]] = option[single]
        else:
            choice[job[first]], choice[job[second]] = option[first], option[second]


def _insist(problem: _Problem, choice: Ints) -> bool:
    """Place jobs that must not wait: in the smallest configuration they have, on what is free and what others hold that
    may wait. Whether anything was changed."""
    use, nothing = problem.use, len(problem.use) - 1
    changed = False
    for job in np.flatnonzero(problem.forced & (choice == nothing)):
        options = np.flatnonzero(np.isfinite(problem.cost[job, :-1]))
        for option in options[np.argsort(use[options].sum(axis=1), kind="stable")]:
            free = problem.supply - problem.held(choice)
            victims = np.flatnonzero(~problem.forced & (use[choice] * (use[option] > 0)).any(axis=1))
            lost = problem.cost[victims, nothing] - problem.cost[victims, choice[victims]]
            lost = lost / use[choice[victims]].sum(axis=1)
            evicted = []
            for victim in victims[np.argsort(lost, kind="stable")]:
                short = use[option] > free
                if not short.any():
                    break
                if (use[choice[victim]] * short).any():
                    free += use[choice[victim]]
                    evicted.append(victim)
            if (use[option] <= free).all():
                choice[evicted] = nothing
                choice[job] = option
                changed = True
                break
    return changed
