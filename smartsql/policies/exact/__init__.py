"""One candidate audited by an exact design: what `certified` does where rows look alike.

`exact.Exact` is the policy; it is run by itself as the strategy `certified-blind`.
"""
