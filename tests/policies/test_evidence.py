from __future__ import annotations

import numpy as np
import pytest

from smartsql.features import ANSWER_NAMES
from smartsql.policies.routing.courses import (
    ACCEPT,
    ASK_SECOND,
    PLANNED,
    REFERENCE,
    Part,
    PlannedAnswers,
    cells,
    courses_for,
    evidence_of,
    second_rates,
)
from smartsql.policies.routing.evidence import evidence
from smartsql.profile import Features, Problem, Profile
from smartsql.replay.recording import Recording
from smartsql.types import FAILED, UNKNOWN, FloatArray, Requirement

ROWS = 60


def profile(
    confidences: dict[str, FloatArray] | None = None,
    verifier: FloatArray | None = None,
    features: Features | None = None,
) -> Profile:
    """All models asked about all rows; `b` errs in every fifth row, `a` in every third."""
    row = np.arange(ROWS)
    truth = row % 3
    codes = {
        "large": truth,
        "a": np.where(row % 3 == 0, (truth + 1) % 3, truth),
        "b": np.where(row % 5 == 0, (truth + 1) % 3, truth),
    }
    data = Recording.of(codes, {"large": 1.0, "a": 0.1, "b": 0.2}, confidences=confidences)
    if verifier is not None:
        data = Recording.of(codes, {"large": 1.0, "a": 0.1, "b": 0.2}, confidences={"a": verifier})
        data = data.verified({"a": np.full(ROWS, 0.1)})
    plain = data.problem(Requirement(0.1, 0.95), 0)
    problem = Problem(
        plain.requirement,
        plain.population,
        plain.reference,
        plain.candidates,
        plain.verifiers,
        features,
    )
    known = Profile(problem)
    for model in problem.callable:
        known.record(
            model.name,
            row,
            data.codes[model.name],
            np.asarray(data.costs[model.name]),
            data.confidences.get(model.name),
        )
    return known


RAMP = np.linspace(0.1, 0.9, ROWS)
ALL = np.arange(ROWS)


def column(found: object, name: str) -> FloatArray:
    known = evidence(*found) if isinstance(found, tuple) else found
    return np.asarray(known.x[:, known.names.index(name)])


def test_open_answers_are_looked_at_beside_their_texts_and_labels_are_not() -> None:
    row = np.arange(ROWS)
    figures = np.column_stack([row, row % 2, row % 7, 255 * (row % 3 == 0), np.zeros(ROWS)])
    for kinds in (3, ROWS):
        known = profile()
        codes = (row % kinds).astype(np.int32)
        known = Profile(known.problem)
        known.record("a", row, codes, np.zeros(ROWS), figures=figures.astype(np.uint8))
        named = [n for n in evidence(known, "a", (), ALL).names if n.startswith("answer: ")]
        # the last column is the same everywhere and tells nothing
        assert named == ([f"answer: {n}" for n in ANSWER_NAMES[:4]] if kinds == ROWS else [])
    shown = column(evidence(known, "a", (), ALL), "answer: words in the text")
    np.testing.assert_allclose(shown > 0, row % 3 == 0)


def test_a_verifiers_confidence_stands_in_for_the_missing_one_of_its_model() -> None:
    own = evidence(profile(confidences={"a": RAMP}), "a", (), ALL)
    judged = evidence(profile(verifier=RAMP), "a", ("a verification",), ALL)
    assert judged.names == own.names and judged.guided
    np.testing.assert_allclose(judged.x, own.x)
    assert not any("confidence" in n for n in evidence(profile(verifier=RAMP), "a", (), ALL).names)


def test_a_helpers_verifier_gives_its_confidence_where_it_agrees_or_differs() -> None:
    names = evidence(profile(verifier=RAMP), "b", ("a", "a verification"), ALL).names
    assert {"a agrees", "a agrees, confidence", "a differs, confidence"} <= set(names)
    assert not any(name.startswith("a verification") for name in names)


def test_figures_of_texts_are_columns_without_a_prior_opinion() -> None:
    values = np.column_stack([ALL, np.full(ROWS, 7)]).astype(np.uint8)
    told = evidence(profile(features=Features(("length", "digits"), values)), "a", (), ALL)
    assert "text: length" in told.names and "text: digits" not in told.names  # constant
    place = told.names.index("text: length")
    assert told.prior[place] == 0.0
    np.testing.assert_allclose(told.x[:, place], (ALL - ALL.mean()) / ALL.std())


def test_numbering_of_answers_and_prompts_does_not_matter() -> None:
    known = profile(confidences={"a": RAMP})
    order = np.random.default_rng(0).permutation(ROWS)
    straight, mixed = evidence(known, "a", ("b",), ALL), evidence(known, "a", ("b",), order)
    common = [n for n in straight.names if not n.startswith("answer ")]
    for name in common:
        np.testing.assert_allclose(column(mixed, name), column(straight, name)[order], atol=1e-12)


def test_columns_of_parts_stand_apart() -> None:
    known = profile(confidences={"a": RAMP})
    parts = (Part("a", (), ALL[:40]), Part("b", ("a",), ALL[40:]))
    both = evidence_of(known, parts, ALL)
    of_a = np.array([name.startswith("a: ") for name in both.names])
    assert (both.x[40:, of_a] == 0.0).all() and (both.x[:40, ~of_a] == 0.0).all()
    assert both.x.shape[1] == both.prior.size == both.precision.size == len(both.names)
    np.testing.assert_allclose(both.x[:40, of_a], evidence(known, "a", (), ALL[:40]).x)


def test_planned_answers_are_copied_once() -> None:
    known = profile()
    parts = (Part("a", (), ALL[:20]), Part("b", ("a",), ALL[20:50]))
    view = PlannedAnswers(known, parts)
    answers = view.codes(PLANNED).copy()
    assert (answers[:20] == known.codes("a")[:20]).all()
    assert (answers[20:50] == known.codes("b")[20:50]).all()
    assert (answers[50:] == FAILED).all()
    wrong = view.disagrees(PLANNED, ALL)
    assert (wrong[:20] == known.disagrees("a", ALL[:20])).all() and wrong[50:].all()
    known.codes("a")[:20] = UNKNOWN
    assert (view.codes(PLANNED) == answers).all()


# ---- groups and courses


def test_each_group_takes_the_course_that_is_worth_its_price() -> None:
    first = np.array([0.01, 0.3, 0.9])
    second = np.array([0.01, 0.02, 0.85])
    rows = np.full(3, 100.0)
    assert courses_for(first, second, rows, 0.2, 200.0).tolist() == [ACCEPT] * 3
    assert courses_for(first, second, rows, 0.2, 10.0).tolist() == [ACCEPT, ASK_SECOND, REFERENCE]
    assert courses_for(first, second, rows, 0.2, 0.0).tolist() == [REFERENCE] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_without_an_assignment_all_groups_are_accepted(bad: float) -> None:
    rates = np.array([0.1, bad])
    assert courses_for(rates, rates, np.ones(2), 0.2, 1.0).tolist() == [ACCEPT, ACCEPT]


def test_equal_risks_share_a_cell_and_cells_rise_with_risk() -> None:
    risk = np.repeat([-1.0, 0.5, 2.0], 20)
    assert np.unique(cells(risk)).size == 3
    spread = cells(np.linspace(-3, 3, 200))
    assert (np.diff(spread) >= 0).all() and spread.min() == 0 and spread.max() == 19


def test_rates_of_the_second_candidate_follow_its_labels() -> None:
    risk = np.linspace(-2, 2, 400)
    wrong = (np.random.default_rng(0).random(400) < np.where(risk > 0, 0.5, 0.05)).astype(float)
    low, high = second_rates(risk, wrong, np.array([-1.5, 1.5]))
    assert low < 0.12 and high > 0.4
    none = second_rates(risk[:3], np.zeros(3), risk)
    assert np.isfinite(none).all() and (none < 0.4).all()
