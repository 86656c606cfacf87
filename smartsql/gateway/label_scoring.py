"""Labels scored by a language model's own next-token probabilities.

A label is a short sequence of tokens. Where the labels of a task begin with different tokens, one
forward pass decides: the label whose first token is likeliest. Where some share their first
tokens ("very good", "very bad"), the passes follow the shared part and multiply. Nothing is
sampled, so there is nothing to parse and an answer is always one of the labels.

Everything here is pure: the model is a function from a text to the likeliest next tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

NextTokens = Callable[[str], Mapping[str, float]]
"""The likeliest next tokens after what has been said so far, with probabilities."""

NEGLIGIBLE = 0.01
DIGITS = 4
"""Digits of a label's share that are kept."""


@dataclass(slots=True)
class Node:
    """A place in the tree of the labels' tokens.

    Attributes:
        ends: the label that is complete here, if any.
        labels: all labels that pass through or end here.
        children: next node by token text.
    """

    ends: str | None = None
    labels: set[str] = field(default_factory=set)
    children: dict[str, Node] = field(default_factory=dict)


def spellings(label: str) -> list[str]:
    """The ways in which a model may write a label: with and without a space, small or capital."""
    capital = label[:1].upper() + label[1:]
    return [space + word for word in dict.fromkeys((label, capital)) for space in (" ", "")]


def token_tree(sequences: Mapping[str, Sequence[Sequence[str]]]) -> Node:
    """The tree of all token sequences of all labels.

    Args:
        sequences: for each label its spellings, each as token texts.

    Raises:
        ValueError: two labels have a spelling in common, or a label has none.
    """
    root = Node()
    for label, spelt in sequences.items():
        if not spelt:
            raise ValueError(f"label {label!r} has no tokens")
        for tokens in spelt:
            node = root
            node.labels.add(label)
            for token in tokens:
                node = node.children.setdefault(token, Node())
                node.labels.add(label)
            if node.ends not in (None, label):
                raise ValueError(f"labels {node.ends!r} and {label!r} have the same tokens")
            node.ends = label
    return root


def label_masses(root: Node, next_tokens: NextTokens) -> dict[str, float]:
    """Probability with which the model's text goes on with each label; 0 where out of sight.

    One call of `next_tokens` at the root and one at each shared prefix, where those with less
    than `NEGLIGIBLE` of the likeliest label so far are not followed.
    """
    masses = dict.fromkeys(root.labels, 0.0)
    open_nodes = [("", 1.0, root)]
    while open_nodes:
        said, weight, node = open_nodes.pop()
        if weight < NEGLIGIBLE * max(masses.values()):
            continue
        seen = next_tokens(said)
        left = weight
        for token, child in node.children.items():
            mass = weight * seen.get(token, 0.0)
            left -= mass
            if mass <= 0.0:
                continue
            if len(child.labels) == 1:
                (label,) = child.labels
                masses[label] += mass
            else:
                open_nodes.append((said + token, mass, child))
        if node.ends is not None:
            # a complete label: whatever does not lead on to a longer one ends it
            masses[node.ends] += max(left, 0.0)
    return masses


def choice(masses: Mapping[str, float], labels: Sequence[str]) -> tuple[str, float] | None:
    """The likeliest label and its share among the labels; None where the model names none.

    Among equals the first of `labels` wins.
    """
    total = sum(masses[label] for label in labels)
    if total <= 0.0:
        return None
    best = max(labels, key=lambda label: masses[label])
    return best, masses[best] / total


def shares(masses: Mapping[str, float]) -> dict[str, float] | None:
    """Share of each label among the labels, rounded so that it is kept exactly; None for none."""
    total = sum(masses.values())
    if not total > 0.0:
        return None
    return {label: round(mass / total, DIGITS) for label, mass in masses.items()}


def segmented(text: str, tokens: Sequence[str]) -> list[str] | None:
    """The text as a sequence of the given tokens, the longest that fits first; None if it has none.

    The tokens are those that a tokenizer made of this very text, in no order.
    """
    if not text:
        return []
    for token in sorted(set(tokens), key=len, reverse=True):
        if token and text.startswith(token):
            rest = segmented(text[len(token) :], tokens)
            if rest is not None:
                return [token, *rest]
    return None
