"""What a model's tokens cost: the configuration first, else the offline list of genai-prices.

A saving can only be promised where the price is known, so a model without one is an error. The
list is the one that was installed; it is never fetched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smartsql.errors import ConfigError, ParameterError, UnknownPriceError
from smartsql.gateway import Price
from smartsql.gateway.urls import is_loopback

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

CONFIGURED = "configuration"


def price_of(
    model_name: str,
    base_url: str,
    input_usd_per_mtok: float | None = None,
    output_usd_per_mtok: float | None = None,
) -> Price:
    """Price of a model at an endpoint.

    The list's provider follows from the host of `base_url`; a host that the list does not know,
    and this machine, need both figures (0 where a model is free). Discounts, as for cached
    input, are left out.

    Args:
        input_usd_per_mtok, output_usd_per_mtok: USD per million tokens; both or neither.

    Returns:
        The price; its source names the list, its version, and the entry that was matched.

    Raises:
        ConfigError: only one of the two figures is given.
        ParameterError: a figure is negative or not finite.
        UnknownPriceError: neither the configuration nor the list has the price.
    """
    if input_usd_per_mtok is not None and output_usd_per_mtok is not None:
        for key, value in (
            ("input_usd_per_mtok", input_usd_per_mtok),
            ("output_usd_per_mtok", output_usd_per_mtok),
        ):
            if not (math.isfinite(value) and value >= 0.0):
                raise ParameterError(
                    f"{key} of model {model_name!r} is {value!r}; it must be 0 or more."
                )
        return Price(float(input_usd_per_mtok), float(output_usd_per_mtok), CONFIGURED)
    if input_usd_per_mtok is not None or output_usd_per_mtok is not None:
        missing = "input_usd_per_mtok" if input_usd_per_mtok is None else "output_usd_per_mtok"
        raise ConfigError(
            f"model {model_name!r} has one of its two prices; {missing} is missing. Set it in its "
            f"[[models]] entry (0 for free), or remove the other to use the price list."
        )
    if is_loopback(base_url):
        raise UnknownPriceError(model_name)
    return _listed(model_name, base_url)


@dataclass(frozen=True, slots=True)
class SteppedPrice(Price):
    """A price that rises for all tokens of a call when its prompt is long.

    The two figures are those of short prompts.

    Attributes:
        steps: (prompt tokens, input figure, output figure): what a call costs whose prompt has
            more tokens than that; in rising order.
    """

    steps: tuple[tuple[int, float, float], ...] = ()

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of a call with these token counts."""
        into, out = self.input_usd_per_mtok, self.output_usd_per_mtok
        for above, step_input, step_output in self.steps:
            if prompt_tokens > above:
                into, out = step_input, step_output
        return (prompt_tokens * into + completion_tokens * out) / 1e6


def discounted(price: Price, part: float) -> Price:
    """The price with a part of it taken off, such as .5 for batches."""
    rest = 1.0 - part
    into, out = price.input_usd_per_mtok * rest, price.output_usd_per_mtok * rest
    source = f"{price.source}, {part:.0%} off in batches"
    if not isinstance(price, SteppedPrice):
        return Price(into, out, source)
    steps = tuple((above, a * rest, b * rest) for above, a, b in price.steps)
    return SteppedPrice(into, out, source, steps)


def price_facts(price: Price) -> dict[str, Any]:
    """A price as JSON can keep it; `price_of_facts` reads it back."""
    steps = price.steps if isinstance(price, SteppedPrice) else ()
    figures = [price.input_usd_per_mtok, price.output_usd_per_mtok]
    return {"figures": figures, "source": price.source, "steps": [list(step) for step in steps]}


def price_of_facts(facts: Mapping[str, Any]) -> Price:
    """What `price_facts` was given."""
    (into, out), steps = facts["figures"], tuple((a, b, c) for a, b, c in facts["steps"])
    if not steps:
        return Price(into, out, facts["source"])
    return SteppedPrice(into, out, facts["source"], steps)


def _listed(model_name: str, base_url: str) -> Price:
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    try:
        provider = snapshot.find_provider(None, None, base_url)
        _, model = snapshot.find_provider_model(model_name, provider, None, None)
    except LookupError as error:
        raise UnknownPriceError(model_name) from error
    prices = model.get_prices(datetime.now(UTC))
    into, out = prices.input_mtok, prices.output_mtok
    if not _is_whole_host(provider.api_pattern, base_url) or into is None or out is None:
        raise UnknownPriceError(model_name)
    if prices.requests_kcount:
        # a fee for each request: not a price by tokens alone
        raise UnknownPriceError(model_name)
    # some providers sell the models of others at the others' prices
    owner = next(p.id for p in snapshot.providers if any(model is own for own in p.models))
    via = "" if owner == provider.id else f" for {provider.id}"
    source = f"genai-prices {genai_prices.__version__}: {owner}/{model.id}{via}"
    starts = sorted({t.start for p in (into, out) for t in getattr(p, "tiers", ())})
    if not starts:
        return Price(_step(into, 0), _step(out, 0), source)
    steps = tuple((start, _step(into, start + 1), _step(out, start + 1)) for start in starts)
    note = f" (more for prompts above {starts[0]} tokens)"
    return SteppedPrice(_step(into, 0), _step(out, 0), source + note, steps)


def _step(figure: Decimal | TieredPrices, prompt_tokens: int) -> float:
    if isinstance(figure, Decimal):
        return float(figure)
    applicable = [tier.price for tier in figure.tiers if prompt_tokens > tier.start]
    return float(applicable[-1] if applicable else figure.base)


def _is_whole_host(pattern: str, url: str) -> bool:
    """Whether a provider's pattern covers the host to its end, not api.openai.com.example.org."""
    match = re.match(pattern, url)
    if match is None:
        return False
    parts = urlsplit(url)
    rest = f"{parts.scheme}://{parts.hostname}"[match.end() :]
    return not rest or match.group().endswith(".")
