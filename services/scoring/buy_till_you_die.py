"""How many purchases a client will still make, whether they are alive at all, what they are worth.

BG/NBD: while alive a client buys at a rate of their own, and after each purchase stops for good
with a probability of their own; over the base rates are Gamma(r, alpha), probabilities Beta(a, b).
Gamma-Gamma: what a client spends at a purchase scatters around a mean of their own. Time
is in weeks, `repeats` counts purchase days after the first.

Sources: P. Fader, B. Hardie, K. L. Lee, "Counting Your Customers the Easy Way", Marketing Science
24 (2005); P. Fader, B. Hardie, "The Gamma-Gamma Model of Monetary Value" (2013). The libraries that
had them are no longer kept (lifetimes, btyd) or bring a sampler and a compiler (pymc-marketing).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1

Numbers: TypeAlias = NDArray[np.float64]
DRAWS = 4_000
_OPTIONS = {"maxiter": 5_000, "xatol": 1e-6, "fatol": 1e-10}
LOWEST, HIGHEST = 0.1, 0.9  # the interval that is told covers eighty in a hundred


class NotFitted(ValueError):
    """The histories say too little: too few clients came back."""


@dataclass(frozen=True, slots=True)
class BgNbd:
    """How the base buys and stops."""

    r: float
    alpha: float
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """How the base spends."""

    p: float
    q: float
    gamma: float


@dataclass(frozen=True, slots=True)
class History:
    """One client.

    Attributes:
        last_week: Weeks from the first to the last purchase day.
        weeks: Weeks from the first purchase day to now.
        mean_spend: Of the repeat purchase days, in major units; 0 without any.
    """

    repeats: int
    last_week: float
    weeks: float
    mean_spend: float = 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of a client within a horizon; pairs leave a tenth out at each end.

    Attributes:
        next_weeks: Weeks until the next purchase if the client is alive: half of such clients will
            have come by then.
    """

    probability_alive: float
    purchases: float
    purchases_range: tuple[float, float]
    next_weeks: float
    next_weeks_range: tuple[float, float]
    spend: float
    value: float
    value_range: tuple[float, float]


def log_likelihood(
    model: BgNbd, repeats: Numbers, last_week: Numbers, weeks: Numbers, clients: Numbers
) -> float:
    """Of histories that `clients` share each."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    buying = gammaln(r + repeats) - gammaln(r) + r * np.log(alpha)
    staying = betaln(a, b + repeats) - betaln(a, b)
    alive = -(r + repeats) * np.log(alpha + weeks)
    gone = (
        np.log(a)
        - np.log(b + np.maximum(repeats, 1) - 1)
        - (r + repeats) * np.log(alpha + last_week)
    )
    end = np.where(repeats > 0, np.logaddexp(alive, gone), alive)
    return float(np.sum(clients * (buying + staying + end)))


def fit_bg_nbd(
    repeats: Numbers, last_week: Numbers, weeks: Numbers, clients: Numbers
) -> tuple[BgNbd, float]:
    """The most likely model and its log-likelihood.

    Raises:
        NotFitted: Nobody has come back, or no maximum was found.
    """
    if not np.any(repeats > 0):
        raise NotFitted("nobody has bought on a second day")
    total = float(np.sum(clients))

    def unlikely(logs: Numbers) -> float:
        r, alpha, a, b = np.exp(np.clip(logs, -12, 12))
        model = BgNbd(float(r), float(alpha), float(a), float(b))
        return -log_likelihood(model, repeats, last_week, weeks, clients) / total

    found = minimize(unlikely, np.log([0.5, 5.0, 0.8, 2.5]), method="Nelder-Mead", options=_OPTIONS)
    if not found.success:
        raise NotFitted(str(found.message))
    model = BgNbd(*(float(value) for value in np.exp(found.x)))
    return model, log_likelihood(model, repeats, last_week, weeks, clients)


def fit_gamma_gamma(repeats: Numbers, mean_spend: Numbers, clients: Numbers) -> GammaGamma:
    """The most likely model of spending, from clients with repeat purchases that cost something.

    Raises:
        NotFitted: There are none, or no maximum was found.
    """
    counts = (repeats > 0) & (mean_spend > 0)
    x, m, weight = repeats[counts], mean_spend[counts], clients[counts]
    if not len(x):
        raise NotFitted("nobody has bought on a second day")

    def unlikely(logs: Numbers) -> float:
        p, q, gamma = np.exp(np.clip(logs, -12, 12))
        likely = (
            gammaln(p * x + q)
            - gammaln(p * x)
            - gammaln(q)
            + q * np.log(gamma)
            + (p * x - 1) * np.log(m)
            + p * x * np.log(x)
            - (p * x + q) * np.log(gamma + m * x)
        )
        return -float(np.sum(weight * likely) / np.sum(weight))

    start = np.log([2.0, 4.0, max(float(np.average(m, weights=weight)), 1e-3)])
    found = minimize(unlikely, start, method="Nelder-Mead", options=_OPTIONS)
    if not found.success:
        raise NotFitted(str(found.message))
    return GammaGamma(*(float(value) for value in np.exp(found.x)))


def probability_alive(model: BgNbd, history: History) -> float:
    """That the client has not stopped for good."""
    if history.repeats == 0:
        return 1.0  # in this model one stops only after a repeat purchase
    r, alpha, x = model.r, model.alpha, history.repeats
    gone = (model.a / (model.b + x - 1)) * (
        (alpha + history.weeks) / (alpha + history.last_week)
    ) ** (r + x)
    return float(1 / (1 + gone))


def expected_purchases(model: BgNbd, history: History, horizon_weeks: float) -> float:
    """In the next weeks. Source: Fader, Hardie and Lee (2005), equation 10."""
    r, alpha, a, b, x = model.r, model.alpha, model.a, model.b, history.repeats
    span = alpha + history.weeks
    shape = hyp2f1(r + x, b + x, a + b + x - 1, horizon_weeks / (span + horizon_weeks))
    rate = (a + b + x - 1) / (a - 1)
    bought = rate * (1 - (span / (span + horizon_weeks)) ** (r + x) * shape)
    return float(bought * probability_alive(model, history))


def expected_spend(model: GammaGamma, history: History) -> float:
    """At a purchase, in major units: the client's own mean, drawn towards the base's."""
    x = history.repeats if history.mean_spend > 0 else 0
    return model.p * (model.gamma + x * history.mean_spend) / (model.p * x + model.q - 1)


def outlook(bg: BgNbd, gg: GammaGamma, history: History, horizon_weeks: float) -> Outlook:
    """What is expected of a client, and how far it may be off.

    The ranges come from draws of this client's own rate, stopping and mean spend as their history
    leaves them possible; the same history gives the same draws.
    """
    alive = probability_alive(bg, history)
    chance = np.random.default_rng(1)
    shape, x = bg.r + history.repeats, history.repeats
    span = bg.alpha + history.weeks
    rates = chance.gamma(shape, 1 / span, DRAWS)
    stops = chance.beta(bg.a, bg.b + x, DRAWS)
    until_stop = chance.geometric(np.maximum(stops, 1e-9))
    purchases = np.minimum(chance.poisson(rates * horizon_weeks), until_stop)
    purchases = np.where(chance.random(DRAWS) < alive, purchases, 0)
    spent = x if history.mean_spend > 0 else 0
    scales = chance.gamma(gg.p * spent + gg.q, 1 / (gg.gamma + spent * history.mean_spend), DRAWS)
    values = purchases * gg.p / np.maximum(scales, 1e-12)
    mean_purchases = expected_purchases(bg, history, horizon_weeks)
    spend = expected_spend(gg, history)
    return Outlook(
        alive,
        mean_purchases,
        _range(purchases.astype(np.float64)),
        _wait(span, shape, 0.5),
        (_wait(span, shape, LOWEST), _wait(span, shape, HIGHEST)),
        spend,
        mean_purchases * spend,
        _range(values),
    )


def _wait(span: float, shape: float, share: float) -> float:
    """Weeks after which this share of clients like this one, if alive, will have bought."""
    return float(span * ((1 - share) ** (-1 / shape) - 1))


def _range(drawn: Numbers) -> tuple[float, float]:
    low, high = np.quantile(drawn, [LOWEST, HIGHEST])
    return float(low), float(high)
