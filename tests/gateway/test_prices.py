from __future__ import annotations

import pytest

from smartsql.errors import ConfigError, ParameterError, UnknownPriceError
from smartsql.gateway import Price
from smartsql.gateway.prices import price_of

OPENAI = "https://api.openai.com/v1"


def test_the_configuration_goes_before_the_list() -> None:
    assert price_of("gpt-4o-mini", OPENAI, 1.0, 2.5) == Price(1.0, 2.5, "configuration")
    assert price_of("mine", "http://localhost:11434/v1", 0, 0) == Price(0.0, 0.0, "configuration")


def test_the_list_names_the_entry_that_was_matched() -> None:
    import genai_prices

    listed = price_of("gpt-4o-mini", OPENAI)
    assert (listed.input_usd_per_mtok, listed.output_usd_per_mtok) == (0.15, 0.6)
    assert listed.source == f"genai-prices {genai_prices.__version__}: openai/gpt-4o-mini"
    loose = price_of("gpt-4o-mini-2024-07-18", OPENAI)
    assert loose == listed
    assert price_of("gpt-5.6", OPENAI).source.split()[2] == "openai/gpt-5.6-sol"


def test_the_provider_follows_from_the_address() -> None:
    elsewhere = price_of("openai/gpt-4o-mini", "https://openrouter.ai/api/v1")
    assert elsewhere.source.endswith("openrouter/openai/gpt-4o-mini")
    sold_on = price_of("gpt-4o", "https://mine.openai.azure.com/openai/v1")
    assert sold_on.source.endswith("openai/gpt-4o for azure")


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gpt-9-unheard-of", OPENAI),
        ("gpt-4o", "https://llm.example.com/v1"),
        ("gpt-4o", "https://api.openai.com.example.org/v1"),
        ("gpt-4o", "http://localhost:8000/v1"),
        ("gpt-4o", "http://127.0.0.1:8000/v1"),
        ("whisper-1", OPENAI),
        ("text-embedding-3-small", OPENAI),
        ("sonar", "https://api.perplexity.ai"),
    ],
)
def test_what_nobody_knows_is_an_error_that_names_the_model_and_both_keys(
    model: str, url: str
) -> None:
    with pytest.raises(UnknownPriceError) as raised:
        price_of(model, url)
    assert raised.value.model == model
    for word in (repr(model), "input_usd_per_mtok", "output_usd_per_mtok"):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("prices", "missing"),
    [((1.0, None), "output_usd_per_mtok"), ((None, 1.0), "input_usd_per_mtok")],
)
def test_half_a_price_is_an_error_that_names_the_other_half(
    prices: tuple[float | None, float | None], missing: str
) -> None:
    with pytest.raises(ConfigError, match=f"{missing} is missing"):
        price_of("gpt-4o", OPENAI, *prices)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_prices_are_finite_and_not_negative(bad: float) -> None:
    with pytest.raises(ParameterError, match="output_usd_per_mtok"):
        price_of("gpt-4o", OPENAI, 1.0, bad)


def test_prices_that_rise_with_the_prompt_are_exact_on_both_sides_of_the_step() -> None:
    stepped = price_of("gpt-6-luna", OPENAI)
    assert "more for prompts above 272000 tokens" in stepped.source
    low = 272_000 * stepped.input_usd_per_mtok + 10 * stepped.output_usd_per_mtok
    assert stepped.cost_usd(272_000, 10) == pytest.approx(low / 1e6)
    from genai_prices import Usage, calc_price

    for prompt_tokens in (1_000, 272_000, 272_001, 900_000):
        usage = Usage(input_tokens=prompt_tokens, output_tokens=50)
        listed = calc_price(usage, model_ref="gpt-6-luna", provider_id="openai").total_price
        assert stepped.cost_usd(prompt_tokens, 50) == pytest.approx(float(listed))
