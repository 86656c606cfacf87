"""How models are asked: the ledger first, then each model, once, within the budget.

`exchange` is where a live statement's answers come from, `backends` are the models it asks, and
`learners` are those that it teaches on the way.
"""
