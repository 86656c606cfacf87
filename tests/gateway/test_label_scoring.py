from __future__ import annotations

from collections.abc import Mapping

import pytest

from smartsql.gateway.label_scoring import (
    choice,
    label_masses,
    segmented,
    shares,
    spellings,
    token_tree,
)


class Scripted:
    """Next-token probabilities by what has been said, and what was asked."""

    def __init__(self, said: Mapping[str, Mapping[str, float]]) -> None:
        self.said, self.calls = said, list[str]()

    def __call__(self, said: str) -> Mapping[str, float]:
        self.calls.append(said)
        return self.said.get(said, {})


def test_labels_with_different_first_tokens_take_one_pass() -> None:
    tree = token_tree({"positive": [[" positive"], ["posit", "ive"]], "negative": [[" negative"]]})
    model = Scripted({"": {" positive": 0.3, "posit": 0.1, " negative": 0.2, " the": 0.4}})
    masses = label_masses(tree, model)
    assert masses == pytest.approx({"positive": 0.4, "negative": 0.2})
    assert model.calls == [""]
    assert choice(masses, ("positive", "negative")) == ("positive", pytest.approx(2 / 3))


def test_shares_are_those_of_the_labels_alone_and_kept_exactly() -> None:
    assert shares({"a": 0.2, "b": 0.1, "c": 0.0}) == {"a": 0.6667, "b": 0.3333, "c": 0.0}
    assert shares({"a": 0.0, "b": 0.0}) is None


def test_shared_first_tokens_are_followed_and_multiplied() -> None:
    tree = token_tree({"very good": [[" very", " good"]], "very bad": [[" very", " bad"]]})
    model = Scripted({"": {" very": 0.5}, " very": {" good": 0.2, " bad": 0.6}})
    masses = label_masses(tree, model)
    assert masses == pytest.approx({"very good": 0.1, "very bad": 0.3})
    assert model.calls == ["", " very"]


def test_a_label_that_begins_another_has_what_does_not_lead_on() -> None:
    tree = token_tree({"1": [["1"]], "10": [["1", "0"]], "2": [["2"]]})
    model = Scripted({"": {"1": 0.8, "2": 0.1}, "1": {"0": 0.25, " ": 0.7}})
    assert label_masses(tree, model) == pytest.approx({"1": 0.6, "10": 0.2, "2": 0.1})


def test_a_shared_prefix_that_the_model_would_hardly_take_costs_no_pass() -> None:
    tree = token_tree({"a b": [[" a", " b"]], "a c": [[" a", " c"]], "d": [[" d"]]})
    model = Scripted({"": {" a": 0.001, " d": 0.9}, " a": {" b": 1.0}})
    assert label_masses(tree, model) == pytest.approx({"a b": 0.0, "a c": 0.0, "d": 0.9})
    assert model.calls == [""]


def test_no_label_in_sight_is_no_choice_and_equals_go_to_the_first() -> None:
    assert choice({"a": 0.0, "b": 0.0}, ("a", "b")) is None
    assert choice({"a": 0.2, "b": 0.2}, ("b", "a")) == ("b", 0.5)


def test_labels_without_tokens_or_with_the_same_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="'b' has no tokens"):
        token_tree({"a": [["a"]], "b": []})
    with pytest.raises(ValueError, match="'a' and 'b' have the same tokens"):
        token_tree({"a": [["x", "y"]], "b": [["x", "y"]]})


def test_a_text_is_put_together_again_from_its_tokens() -> None:
    assert segmented(" very good", [" good", " very"]) == [" very", " good"]
    assert segmented("aab", ["a", "aa", "ab"]) == ["a", "ab"]
    assert segmented("10", ["0", "1"]) == ["1", "0"]
    assert segmented("日本", ["日", "\ufffd"]) is None
    assert segmented("", []) == []


def test_spellings_have_both_cases_and_both_beginnings_once() -> None:
    assert spellings("yes") == [" yes", "yes", " Yes", "Yes"]
    assert spellings("1") == [" 1", "1"]
