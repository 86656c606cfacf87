"""Policies over recorded answers: what each would have cost, and if it kept its promise."""
