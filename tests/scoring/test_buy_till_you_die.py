"""The models give the figures that their authors published for the CDNOW customers.

Source: Fader, Hardie and Lee (2005): 2,357 customers over 39 weeks, r .243, alpha 4.414, a .793,
b 2.426, log-likelihood -9582.4; Fader and Hardie (2013) for Gamma-Gamma: p 6.25, q 3.74, gamma
15.44. The customers' summary comes inside the package `lifetimes`.
"""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from services.scoring.buy_till_you_die import (
    BgNbd,
    GammaGamma,
    History,
    NotFitted,
    Numbers,
    expected_purchases,
    expected_spend,
    fit_bg_nbd,
    fit_gamma_gamma,
    log_likelihood,
    outlook,
    probability_alive,
)

PUBLISHED = BgNbd(0.243, 4.414, 0.793, 2.426)
SPENDING = GammaGamma(6.25, 3.74, 15.44)


def dataset(file: str) -> str:
    package = importlib.util.find_spec("lifetimes")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "datasets" / file
    return path.read_text(encoding="ascii")


def cdnow(file: str = "cdnow_customers_summary.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(dataset(file).splitlines()))


def summary() -> tuple[Numbers, Numbers, Numbers, Numbers]:
    rows = cdnow()
    x, last, weeks = (
        np.array([float(row[n]) for row in rows]) for n in ("frequency", "recency", "T")
    )
    return x, last, weeks, np.ones(len(rows))


def test_the_published_model_has_the_published_likelihood() -> None:
    assert len(summary()[0]) == 2357
    assert log_likelihood(PUBLISHED, *summary()) == pytest.approx(-9582.4, abs=0.1)


def test_the_published_model_is_found() -> None:
    model, likelihood = fit_bg_nbd(*summary())
    assert (round(model.r, 3), round(model.alpha, 2)) == (0.243, 4.41)
    assert (round(model.a, 2), round(model.b, 2)) == (0.79, 2.43)
    assert likelihood == pytest.approx(-9582.4, abs=0.1)


def test_clients_with_the_same_history_can_be_counted_together() -> None:
    x, last, weeks, _ = summary()
    rows, counts = np.unique(np.stack([x, last, weeks]), axis=1, return_counts=True)
    alone, together = (
        log_likelihood(PUBLISHED, *summary()),
        log_likelihood(PUBLISHED, rows[0], rows[1], rows[2], counts.astype(float)),
    )
    assert together == pytest.approx(alone)


def test_expectations_of_a_single_customer_are_the_published_ones() -> None:
    # Source: the authors' note on BG/NBD in Excel, customer 0001, 39 weeks ahead.
    history = History(2, 30.43, 38.86)
    assert expected_purchases(PUBLISHED, history, 39) == pytest.approx(1.226, abs=0.001)
    assert probability_alive(PUBLISHED, history) == pytest.approx(0.7266, abs=0.001)
    assert probability_alive(PUBLISHED, History(0, 0, 38.86)) == 1


def test_spending_is_found_as_published() -> None:
    rows = cdnow("cdnow_customers_summary_with_transactions.csv")
    x, spend = (np.array([float(row[name]) for row in rows]) for name in ("x", "zbar"))

    model = fit_gamma_gamma(x, spend, np.ones(len(rows)))

    assert (round(model.p, 2), round(model.q, 2)) == (6.25, 3.74)
    assert model.gamma == pytest.approx(15.44, abs=0.01)


def test_a_mean_spend_is_drawn_towards_that_of_the_base() -> None:
    base = SPENDING.p * SPENDING.gamma / (SPENDING.q - 1)
    assert expected_spend(SPENDING, History(0, 0, 10)) == pytest.approx(base)
    few, many = (expected_spend(SPENDING, History(n, 9, 10, 100.0)) for n in (1, 50))
    assert base < few < many < 100


def test_an_outlook_tells_how_far_it_may_be_off() -> None:
    seen = outlook(PUBLISHED, SPENDING, History(6, 36, 38.86, 40.0), 52)
    assert seen.purchases_range[0] <= seen.purchases <= seen.purchases_range[1]
    assert seen.value_range[0] < seen.value < seen.value_range[1]
    assert seen.next_weeks_range[0] < seen.next_weeks < seen.next_weeks_range[1]
    assert seen == outlook(PUBLISHED, SPENDING, History(6, 36, 38.86, 40.0), 52)
    gone = outlook(PUBLISHED, SPENDING, History(6, 3, 38.86, 40.0), 52)
    assert gone.probability_alive < 0.01 < seen.probability_alive
    assert gone.value < seen.value


def test_nothing_is_fitted_to_clients_who_never_came_back() -> None:
    once = np.zeros(5)
    with pytest.raises(NotFitted):
        fit_bg_nbd(once, once, np.ones(5), np.ones(5))
    with pytest.raises(NotFitted):
        fit_gamma_gamma(once, once, np.ones(5))
