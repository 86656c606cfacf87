"""A report told to people: the plan, what was asked for it, how the proof went, what drifted."""

from __future__ import annotations

import html
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 320, 80


def plan_lines(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was decided, as (what, value); nothing where the reference answers all rows."""
    if certificate.get("deployed", {}).get("model") is None:
        return []
    if certificate.get("procedure") == "exact":
        return _exact(certificate)
    return _routed(certificate)


def _exact(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One candidate, a plain audit."""
    deployed = facts["deployed"]
    if not deployed["permitted"]:
        return [("plan", f"no candidate was proved; {deployed['model']} on tolerated rows only")]
    test = next(t for t in facts["tests"] if t["model"] == deployed["model"])
    return [
        ("plan", f"{deployed['model']} on all rows after an audit of rows at random"),
        ("proof", f"{test['found']:,} of {test['drawn']:,} audited rows differed (repaired)"),
    ]


def _routed(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows by their evidence."""
    lines = [
        ("plan", "; ".join(map(_answering, facts["plan"]["answers"]))),
        ("evidence", ", ".join(_kinds(facts["columns"][1:])) or "none"),
        (
            "routed",
            f"{facts['escalated']:,} likely wrong went to the reference, {facts['drawn']:,} were "
            f"drawn for the audit: {facts['found']:,} wrong rows found and repaired",
        ),
    ]
    if facts["deployed"]["proved"]:
        path = [r["log_evidence"] for r in facts["rounds"]]
        lines.append(
            (
                "proof",
                f"{bars(path, facts['threshold'])} in {len(path)} rounds: that more than "
                f"{facts['tolerated']:,} wrong rows are left is ruled out at level "
                f"{facts['alpha']:.3g}",
            )
        )
    return lines


def _answering(part: Mapping[str, Any]) -> str:
    """One part of a plan: whose answer, and what was asked before."""
    before = f" (after {', '.join(part['after'])})" if part["after"] else ""
    return (
        f"{part['model']}{before} asked {part['prompts']:,} prompts, answers {part['deployed']:,}"
    )


def _kinds(columns: Sequence[str]) -> list[str]:
    """Kinds of evidence, without the details of their columns."""
    kinds = (("text:", "text"), ("confidence", "confidence"), ("answer", "answer"))
    found: dict[str, None] = {}
    for column in columns:
        kind = next((kind for start, kind in kinds if column.startswith(start)), None)
        found[kind or column.split(",")[0].split(" x ")[0]] = None
    return list(found)


def drift_sentences(drift: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each model that was compared with its earlier answers: why, what came of it, what to do.

    Args:
        drift: findings; see `smartsql.asking.drift.Finding`.
    """
    return [
        " ".join(filter(None, (_mixture(found), _repetition(found), _advice(found))))
        for found in drift
    ]


def drifted(drift: Sequence[Mapping[str, Any]]) -> str:
    """What a promise does not say where a model has changed, to be said after it."""
    return "".join(
        f"; {sum(found['then'].values()):,} of "
        f"{'the reference' if found['role'] == 'reference' else found['model']}'s answers are "
        f"those of {_listed(found['then'])}, and it is {found['now']} now"
        for found in drift
        if found["then"]
    )


def _mixture(found: Mapping[str, Any]) -> str:
    """That answers of another id are among those that the result rests on."""
    if not found["then"]:
        return ""
    n = sum(found["then"].values())
    return (
        f"{found['model']} is {found['now']} now, and this rests on {n:,} "
        f"answer{'s' * (n != 1)} that it gave as {_listed(found['then'])}."
    )


def _repetition(found: Mapping[str, Any]) -> str:
    """What it said to a sample of the same prompts."""
    if found["why"]:
        return f"They were not compared with what it says now: {found['why']}"
    n = found["asked"] - found["failed"]
    lost = f" ({found['failed']:,} more brought no answer)" if found["failed"] else ""
    if not n:
        return f"It did not answer when it was asked again{lost}, so nothing was compared."
    who = "The reference" if found["role"] == "reference" else found["model"]
    return (
        f"{who} repeated {found['same']:,} of {n:,} of its cached answers{lost} (at least "
        f"{_rounded_down(found['kept_at_least'])} % of all {found['answers']:,}, with 95 %)."
    )


def _advice(found: Mapping[str, Any]) -> str:
    """How to have earlier answers asked anew, where too many of them would be others today."""
    if not found["is_significant"]:
        return ""
    models = [f"--served-by {shlex.quote(one)}" for one in found["then"]] or [""]
    commands = [f"smartsql forget {shlex.quote(found['model'])} {m}".strip() for m in models]
    return (
        f"At least {_rounded_down(found['changed_at_least'])} % have changed, more than a quarter "
        f"of what the promise allows: run `{' && '.join(commands)}` and the statement again to "
        f"have them asked anew."
    )


def _listed(then: Mapping[str, int]) -> str:
    return ", ".join(then)


def _rounded_down(share: float) -> str:
    """A lower bound in percent, never above what was proved."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:g}"


def bars(path: Sequence[float | None], threshold: float) -> str:
    """The evidence after each round as a row of bars; a full one is the threshold."""
    top = max(threshold, 1e-9)
    shares = [0.0 if v is None else min(1.0, max(0.0, v / top)) for v in path]
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)


def groups_html(certificate: Mapping[str, Any]) -> str:
    """What became of the rows by predicted error rate, as a table; empty where there is none."""
    groups = certificate.get("groups", ())
    if not groups or not isinstance(groups[0], Mapping) or "deployed" not in groups[0]:
        return ""
    names = ("rows", "escalated", "drawn", "deployed")
    head = "".join(f"<th>{name}</th>" for name in ("predicted error", *names))
    body = "".join(
        f"<tr><td>{group['predicted_error_rate']:.1%}</td>"
        + "".join(f"<td>{group[name]:,}</td>" for name in names)
        + "</tr>"
        for group in groups
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def path_svg(certificate: Mapping[str, Any]) -> str:
    """The evidence by round as a picture, with the threshold; empty where there is none."""
    path: list[float | None] = [r["log_evidence"] for r in certificate.get("rounds", ())]
    known = [v for v in path if v is not None]
    if len(known) < 2:
        return ""
    threshold = float(certificate["threshold"])
    low, high = min(0.0, *known), max(threshold, *known)
    spread = (high - low) or 1.0

    def y(value: float) -> float:
        return HEIGHT - (value - low) / spread * HEIGHT

    step = WIDTH / max(1, len(path) - 1)
    points = " ".join(f"{k * step:.1f},{y(v):.1f}" for k, v in enumerate(path) if v is not None)
    label = html.escape(f"evidence in nats by round; proved at {threshold:.2f}")
    return (
        f"<svg width='{WIDTH}' height='{HEIGHT + 4}' role='img' aria-label='{label}'>"
        f"<title>{label}</title>"
        f"<line x1='0' x2='{WIDTH}' y1='{y(threshold):.1f}' y2='{y(threshold):.1f}' "
        f"stroke='#2a7' stroke-dasharray='4'/>"
        f"<polyline points='{points}' fill='none' stroke='#336' stroke-width='1.5'/></svg>"
    )
