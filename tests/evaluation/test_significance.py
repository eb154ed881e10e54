"""Intervals and tests over people: against SciPy, against enumeration, and in a simulation whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from gloam.errors import GloamError
from gloam.evaluation.significance import holm, paired_difference, sign_flip_test


def _people(generator: np.random.Generator, people: int, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """Differences of queries that share a person's own part; 2 to 8 queries a person."""
    counts = generator.integers(2, 9, people)
    identities = np.repeat(np.arange(people), counts)
    own = generator.normal(0, 0.2, people)[identities]
    return truth + own + generator.normal(0, 0.1, len(identities)), identities


def test_equal_people_give_the_interval_of_scipy() -> None:
    draws = np.random.default_rng(1)
    per_person = draws.normal(0.03, 0.1, 60)
    found = paired_difference(np.repeat(per_person, 4), np.repeat(np.arange(60), 4), draws=20_000)
    tail = stats.norm.cdf(-np.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    told = stats.bootstrap(
        (per_person,), np.mean, confidence_level=1 - 2 * tail, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert found.value == pytest.approx(per_person.mean())
    assert found.low == pytest.approx(told.low, abs=0.001)
    assert found.high == pytest.approx(told.high, abs=0.001)
    assert found.people == 60


@pytest.mark.parametrize("people", [2, 7, 12])
def test_few_people_give_the_exact_p_value_of_scipy(people: int) -> None:
    values = np.random.default_rng(people).normal(0.3, 1, people)
    told = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(values) == pytest.approx(told.pvalue)
    patterns = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=people)]
    assert sign_flip_test(values) == pytest.approx(np.mean(np.array(patterns) >= abs(values.sum()) - 1e-12))


def test_many_people_give_nearly_the_p_value_of_scipy() -> None:
    values = np.random.default_rng(5).normal(0.12, 1, 200)
    told = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip_test(values, 20_000) == pytest.approx(told.pvalue, abs=0.01)
    assert 0 < sign_flip_test(np.ones(200)) <= 2 / 10_001
    assert sign_flip_test(np.zeros(50)) == 1


@pytest.mark.parametrize(("people", "least"), [(20, 0.93), (100, 0.93)])
def test_intervals_hold_the_truth_in_95_of_100_draws(people: int, least: float) -> None:
    """1,000 simulated sets of people whose true difference is 0.04; three standard errors of 1,000 draws are 2 %."""
    generator = np.random.default_rng(people)
    held = 0
    for number in range(1000):
        values, identities = _people(generator, people, 0.04)
        found = paired_difference(values, identities, draws=1000, seed=number)
        held += found.low <= 0.04 <= found.high
    assert least <= held / 1000 <= 0.97


def test_drawing_queries_instead_of_people_would_promise_too_much() -> None:
    """What the house rule is for: with every query a person of its own the interval holds the truth far too rarely."""
    generator = np.random.default_rng(0)
    held = 0
    for number in range(300):
        values, _ = _people(generator, 60, 0.04)
        found = paired_difference(values, np.arange(len(values)), draws=500, seed=number)
        held += found.low <= 0.04 <= found.high
    assert held / 300 < 0.8


def test_without_a_difference_the_test_errs_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    found = [paired_difference(*_people(generator, 40, 0.0), draws=500, seed=n).p_value for n in range(1000)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 1000))


def test_weights_count() -> None:
    """Two trials of unlike size: the published score weighs each trial, not each query, alike."""
    values, identities = [1.0, 0.0, 0.0, 0.0, 0.0], [1, 2, 1, 2, 3]
    weights = [0.25, 0.25, 0.5 / 3, 0.5 / 3, 0.5 / 3]
    assert paired_difference(values, identities, weights).value == pytest.approx(0.25)


def test_the_same_seed_gives_the_same_numbers_and_another_nearly_so() -> None:
    values, identities = _people(np.random.default_rng(0), 50, 0.02)
    one, other = (paired_difference(values, identities, seed=seed) for seed in (0, 1))
    assert paired_difference(values, identities, seed=0) == one != other
    assert one.low == pytest.approx(other.low, abs=0.005)


def test_holm_by_hand() -> None:
    # Sorted .005, .01, .03, .04: times 4, 3, 2, 1 = .02, .03, .06, .04 -> never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "identities", "weights", "message"),
    [
        ([1.0, 2.0], [1], None, "one of each"),
        ([1.0, np.nan], [1, 2], None, "finite"),
        ([1.0, 2.0], [1, 2], [1.0, 0.0], "positive"),
        ([1.0, 2.0], [1, 1], None, "two identities"),
    ],
)
def test_mistakes_are_named(values: list, identities: list, weights: list | None, message: str) -> None:
    with pytest.raises(GloamError, match=message):
        paired_difference(values, identities, weights)
