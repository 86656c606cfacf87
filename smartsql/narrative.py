"""A certificate told to people: the plan, what was asked for it, and how the proof went."""

from __future__ import annotations

import html
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
    if "rounds" not in facts:
        return [("plan", f"{facts['deployed']['model']} on tolerated rows only")]
    primary, helpers = facts["primary"], facts["helpers"]
    seen = ", ".join(facts["columns"][1:6]) or "none"
    more = len(facts["columns"]) - 6
    lines = [
        (
            "plan",
            f"{primary} answers" + (f", compared with {', '.join(helpers)}" if helpers else ""),
        ),
        ("evidence", seen + (f" and {more} more" if more > 0 else "")),
        (
            "routed",
            f"{facts['escalated']:,} prompts likely wrong went to the reference, "
            f"{facts['drawn']:,} were drawn for the audit; {facts['found']:,} wrong rows repaired",
        ),
    ]
    if facts["deployed"]["proved"]:
        path = [r["log_evidence"] for r in facts["rounds"]]
        lines.append(
            (
                "proof",
                f"{bars(path, facts['threshold'])} more than {facts['tolerated']:,} wrong rows "
                f"left is rejected after {len(path)} rounds",
            )
        )
    return lines


def bars(path: Sequence[float | None], threshold: float) -> str:
    """The evidence after each round as a row of bars; a full one is the threshold."""
    top = max(threshold, 1e-9)
    shares = [0.0 if v is None else min(1.0, max(0.0, v / top)) for v in path]
    return "".join(BARS[round(share * (len(BARS) - 1))] for share in shares)


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
