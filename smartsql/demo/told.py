"""What the routing of a statement did, told to somebody who sees it for the first time."""

from __future__ import annotations

from smartsql.reports.report import Report


def told(report: Report) -> list[str]:
    """Who answered what, and why that was safe; sentences for the demonstration."""
    facts = report.certificate
    deployed = facts.get("deployed") or {}
    reference, primary = report.models[0].name, deployed.get("model")
    rows = next((m.rows for m in report.models if m.name == primary), 0)
    if not primary or not rows:
        return [f"Nothing was predicted to pay, so {reference} answered every review."]
    kept = f"{primary}'s answer was kept on {rows:,} reviews, {reference} answered the others"
    if "escalated" not in facts or "drawn" not in facts:
        how = "after an audit of reviews drawn at random"
        if not (deployed.get("proved") or deployed.get("permitted")):
            how = f"without an audit: so many may be wrong (delta = {report.delta:g})"
        return [f"{kept}, {how}."]
    helpers = [name for name in facts.get("helpers", ()) if name != primary]
    clues = f"how sure {primary} is"
    if helpers:
        clues += f" and what {' and '.join(helpers)} would say"
    doubtful = (
        f"{kept}. By {clues}, {facts['escalated']:,} answers looked doubtful and were asked of "
        f"{reference} instead."
    )
    most = facts.get("tolerated", int(report.delta * report.rows))
    if not deployed.get("proved"):
        return [doubtful, f"The rest needs no proof: {most:,} reviews may differ in any case."]
    return [
        doubtful,
        f"{facts['drawn']:,} of the others were drawn at random to check them. In all "
        f"{facts.get('found', 0):,} wrong answers were found and replaced; that more than {most:,} "
        f"of the {report.rows:,} answers still differ is ruled out at {report.gamma:.0%}.",
    ]
