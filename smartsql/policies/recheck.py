"""Certificates of any procedure, checked again from their own facts."""

from __future__ import annotations

from typing import Any

from smartsql.policies.exact.certificate import recheck_exact
from smartsql.policies.routing.certificate import recheck_routing


def recheck(facts: dict[str, Any]) -> list[str]:
    """What a certificate claims and does not hold; empty when all of it holds."""
    procedure = facts.get("procedure")
    if procedure == "exact":
        return recheck_exact(facts)
    if procedure == "routed":
        return recheck_routing(facts)
    return [f"the certificate names the procedure {procedure!r}, which is unknown here"]
