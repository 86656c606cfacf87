"""The report of a call: made from what was answered, told to people, checked against the ledger."""
