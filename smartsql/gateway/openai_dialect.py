"""The requests as an endpoint wants them: which parameters it takes, under which names."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from smartsql.errors import ConfigError
from smartsql.gateway import Form

log = logging.getLogger(__name__)

TOP_LOGPROBS = 5
RENAMED = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
"""Two names of one parameter: newer and older endpoints each take only one."""
DROPPABLE = ("top_logprobs", "logprobs", "temperature", "seed")
"""Parameters without which a request is still the same question."""
ADAPTABLE = (*DROPPABLE, *RENAMED)

FORMAT = "response_format"
"""Holds a model to a JSON schema."""

_OURS = ("model", "messages", "stream", "n", "logprobs", "top_logprobs")


class Dialect:
    """The body of a model's requests; adapted when the endpoint refuses a parameter.

    Args:
        name: the model's name in the configuration.
        model: the id that is sent.

    Raises:
        ConfigError: a parameter that is not the user's to set here.
    """

    def __init__(
        self,
        name: str,
        model: str,
        system: str | None,
        parameters: Mapping[str, Any],
        *,
        logprobs: bool,
    ) -> None:
        for key in _OURS:
            if key in parameters:
                raise ConfigError(
                    f"parameter {key!r} of model {name!r} cannot be set in `parameters`; remove "
                    f"it" + (" and set logprobs = true on the model." if "logprobs" in key else ".")
                )
        try:
            json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the parameters of model {name!r} cannot be sent as JSON ({error}). Use numbers, "
                f"text, booleans, lists and tables."
            ) from error
        self._name = name
        self._model = model
        self._before = [] if system is None else [{"role": "system", "content": system}]
        extra = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if logprobs else {}
        self.sent: dict[str, Any] = dict(parameters) | extra
        self._adapted: set[str] = set()
        self._takes_forms = FORMAT not in parameters  # the user's own goes before ours
        self._schemas: dict[str, Any] = {}

    def form(self, form: Form | None) -> Form | None:
        """The form that goes with a request; None where the endpoint takes none."""
        return form if self._takes_forms else None

    def refuse_forms(self) -> None:
        """Send no more schemas: the endpoint does not take them. Answers are matched instead."""
        if self._takes_forms:
            log.warning("model %s does not take %s: left out", self._name, FORMAT)
            self._takes_forms = False

    def body(self, prompt: str, form: Form | None = None) -> dict[str, Any]:
        """The request for a prompt, with the form that `form` let through."""
        messages = [*self._before, {"role": "user", "content": prompt}]
        body = {"model": self._model, "messages": messages, **self.sent}
        if form is not None:
            if form.schema not in self._schemas:
                schema = {"name": form.name, "strict": True, "schema": json.loads(form.schema)}
                self._schemas[form.schema] = {"type": "json_schema", "json_schema": schema}
            body[FORMAT] = self._schemas[form.schema]
        return body

    def adapt(self, parameter: str, refused: Mapping[str, Any]) -> bool:
        """Leave out or rename what the endpoint does not take; True to send the request again.

        Each parameter is adapted once. Of many calls in flight with the same parameters the
        first refusal adapts, and the others need only be sent again.

        Args:
            refused: `sent` as it was when the refused request was made.
        """
        if parameter not in refused:
            return False
        if refused is not self.sent:
            return True
        if parameter in self._adapted or RENAMED.get(parameter) in self._adapted:
            return False  # without either name answers would be unlimited, which nobody asked for
        self._adapted.add(parameter)
        rest = {key: value for key, value in refused.items() if key != parameter}
        if parameter in RENAMED:
            rest[RENAMED[parameter]] = refused[parameter]
            log.warning(
                "model %s takes %s, not %s: renamed", self._name, RENAMED[parameter], parameter
            )
        else:
            if parameter == "logprobs":
                rest.pop("top_logprobs", None)  # it means nothing alone
            log.warning("model %s does not take %s: left out", self._name, parameter)
        self.sent = rest
        return True


def longest_answer(name: str, parameters: Mapping[str, Any]) -> int | None:
    """The limit on completion tokens among the parameters, None without one.

    Raises:
        ConfigError: it is not a positive integer.
    """
    for key in RENAMED:
        value = parameters.get(key)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise ConfigError(
                f"parameter {key} of model {name!r} is {value!r}; it must be a positive integer."
            )
        return value
    return None
