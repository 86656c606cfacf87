"""The report: what was promised, what was spent, and on which evidence."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from smartsql.reports.narrative import drift_sentences, drifted, groups_html, path_svg, plan_lines

FORMAT = 1
INCOMPLETE = "incomplete"
"""Strategy of a report whose money ran out: only reference answers, no decision to check."""


_NESTED = ("models", "certificate", "notes", "task_definition", "self_agreement", "groups", "drift")
"""Fields that are JSON text in a table."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model's part in a call.

    Attributes:
        role: "reference" or "candidate"; "verifier", "step" and "repeat" (the reference asked
            again) answer no row.
        identity: everything but the prompt that may change its answers.
        price: USD per million tokens in and out and where the figures come from.
        expected_cost: cost of a call as estimated before the first (unit of the report).
        mean_cost: cost of a call as measured (unit of the report).
        rows: rows of the result that carry its answer.
        calls: delivered answers paid for in this run; `cached` were paid for earlier.
        failed: answers without a usable value.
        retries: attempts that were followed by another one.
        failed_cost_usd: the part of `cost_usd` that bought nothing.
        recipe: what goes into its prompts beside the cell; empty for the task's own prompt.
    """

    name: str
    role: str
    identity: str
    price: str
    learns: bool
    expected_cost: float
    mean_cost: float
    rows: int
    calls: int
    cached: int
    failed: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    failed_cost_usd: float
    seconds: float
    served_by: tuple[str, ...] = ()
    last_error: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def answers_rows(self) -> bool:
        """Whether a row may carry its answer."""
        return self.role in ("reference", "candidate")


@dataclass(frozen=True, slots=True)
class Report:
    """What one smart call did; JSON-able through `to_dict`.

    `spend` and `reference_spend` are in `unit`: "usd", or "s" (seconds of computing) where the
    reference model has no price. `reference_spend` is what the reference alone would have cost on
    all prompts, at the mean cost of its calls.

    Attributes:
        bound: share of rows that may differ from the reference, with probability >= gamma.
        certificate: facts from which the decision can be checked again.
        run: number of the run in the ledger; `statement` is the key of its rows and promise.
        rows_digest: of prompts and weights; `answers_digest`: of who answers which prompt.
        self_agreement: prompts that the reference was "asked" again on demand, and how many had
            the "same" answer or "failed" to have one.
        per, group: what groups the rows of the call, and the value that all of these have.
        drift: of models that give other ids than with earlier answers, or that were compared with
            those on demand: what came of it; see `smartsql.asking.drift.Finding`.
        groups: all groups of the call so far, each in short.
        place: of the call among those of its statement, in the order in which they were answered.
        promises: of the statement so far, this one included; `jointly` is the probability with
            which all of them hold, None where there is no other.
    """

    call: str
    task: str | None
    rows: int
    prompts: int
    delta: float
    gamma: float
    bound: float
    strategy: str
    seed: int
    unit: str
    spend: float
    reference_spend: float
    spend_usd: float
    reference_spend_usd: float
    pilot_rows: int
    audited_rows: int
    assigned_rows: int
    reference_rows: int
    error_rows: int
    rounds: int
    seconds: float
    decide_s: float
    started_at: str
    models: tuple[ModelReport, ...]
    certificate: dict[str, Any]
    notes: tuple[str, ...]
    run: int
    statement: str
    rows_digest: str
    answers_digest: str
    store: str
    version: str
    task_definition: dict[str, Any] = field(default_factory=dict)
    self_agreement: dict[str, int] | None = None
    per: str | None = None
    group: str | None = None
    groups: tuple[dict[str, Any], ...] = ()
    place: int = 1
    promises: int = 1
    jointly: float | None = None
    drift: tuple[dict[str, Any], ...] = ()
    format: int = FORMAT

    @property
    def saved(self) -> float:
        """Share of the reference-only spend that was not spent."""
        return 1 - self.spend / self.reference_spend if self.reference_spend else 0.0

    @property
    def failed_cost_usd(self) -> float:
        """The part of `spend_usd` that bought nothing: tries that failed, answers of no use."""
        return sum(model.failed_cost_usd for model in self.models)

    @property
    def call_of_groups(self) -> str:
        """The call without the group that the report is about."""
        return self.call if self.per is None else self.call.rpartition(f" per {self.per} ")[0]

    @property
    def is_certified(self) -> bool:
        """Whether the promise holds as asked."""
        return self.bound <= self.delta + 1e-12

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able; `smartsql verify` reads it back."""
        return asdict(self)

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def row(self) -> dict[str, Any]:
        """The fields of one row of `smart_reports()`; nested ones as JSON text."""
        fields = self.to_dict()
        for name in _NESTED:
            if fields[name] is not None:
                fields[name] = json.dumps(fields[name], ensure_ascii=False)
        return fields

    def money(self, value: float) -> str:
        """A cost in the unit of the report."""
        return format_cost(value, self.unit)

    def bill(self) -> str:
        """One line: rows, spend against reference-only, the promise."""
        if self.strategy == INCOMPLETE:
            return (
                f"smart: {counted(self.rows, 'row')}, {self.money(self.spend)}"
                f"{lost_money(self.failed_cost_usd)} spent until the budget was used up; "
                f"{self.promise()}"
            )
        saved = f", {self.saved:z.0%} saved" if self.reference_spend else ""
        return (
            f"smart: {counted(self.rows, 'row')}, {self.money(self.spend)}"
            f"{lost_money(self.failed_cost_usd)} (reference only: "
            f"{self.money(self.reference_spend)}{saved}); {self.promise()}"
        )

    def promise(self) -> str:
        """What is promised, as a phrase."""
        return self._promised() + drifted(self.drift)

    def _promised(self) -> str:
        if self.error_rows:
            have, count = ("has", "counts") if self.error_rows == 1 else ("have", "count")
            return f"{counted(self.error_rows, 'row')} {have} no answer and {count} as different"
        if self.assigned_rows == 0:
            return "every answer is the reference model's"
        return (
            f"at most {self.bound:.2%} of the rows differ from the reference with probability "
            f"{self.gamma:.3g}"
        )

    def lines(self) -> list[tuple[str, str]]:
        """The report for people: (what, value)."""
        return [
            ("call", self.call + (f" with task {self.task!r}" if self.task else "")),
            ("rows", f"{self.rows:,} ({counted(self.prompts, 'distinct prompt')})"),
            (
                "asked for",
                f"at most {100 * self.delta:.4g} % differ, {100 * self.gamma:.4g} % sure",
            ),
            ("promise", self.promise()),
            (
                "spend",
                f"{self.money(self.spend)} of {self.money(self.reference_spend)} for the "
                f"reference alone: {self._outcome()}",
            ),
            ("pilot, audit", f"{self.pilot_rows:,} and {counted(self.audited_rows, 'row')}"),
            (
                "answered by",
                "; ".join(f"{m.name}: {counted(m.rows, 'row')}" for m in self._answering()),
            ),
            (
                "calls",
                "; ".join(
                    f"{m.name}: {m.calls:,}"
                    + (f" (+{m.cached:,} paid for earlier)" if m.cached else "")
                    + (f", {m.failed:,} failed" if m.failed else "")
                    for m in self.models
                ),
            ),
            *self._failures(),
            *plan_lines(self.certificate),
            *self._group_lines(),
            ("round trips", f"{self.rounds:,} before the bulk of the answers"),
            ("time", f"{self.seconds:.2f} s, {self.decide_s:.2f} s of it decisions"),
            *self._wavering(),
            *(("drift", sentence) for sentence in drift_sentences(self.drift)),
            ("seed", f"{self.seed} (statement {self.statement}, run {self.run})"),
            *(("note", note) for note in self.notes),
        ]

    def _outcome(self) -> str:
        """What came of the money, as a phrase; rows without an answer are no saving."""
        if self.strategy == INCOMPLETE:
            return "the budget was used up"
        return f"{self.saved:z.1%} saved"

    def _answering(self) -> list[ModelReport]:
        return [model for model in self.models if model.answers_rows]

    def _group_lines(self) -> list[tuple[str, str]]:
        """A line for each group of the call, and what all promises say together."""
        lines = [
            (
                f"{self.per} {'IS NULL' if g['group'] is None else '= ' + repr(g['group'])}",
                f"{counted(g['rows'], 'row')}, {self.money(g['spend'])}; {g['promise']}",
            )
            for g in self.groups
        ]
        if self.jointly is not None:
            said = f"all {self.promises:,} promises of the statement so far hold together with "
            lines.append(("jointly", f"{said}probability at least {self.jointly:.4g}"))
        return lines

    def _failures(self) -> list[tuple[str, str]]:
        """What was tried again, and the money that bought nothing, if there was any."""
        retries = sum(model.retries for model in self.models)
        if not retries and not self.failed_cost_usd:
            return []
        tries = "try was" if retries == 1 else "tries were"
        said = f"{retries:,} {tries} followed by another one"
        if self.failed_cost_usd:
            cost = format_cost(self.failed_cost_usd, "usd")
            said += f"; {cost} (at most) were spent on what brought no answer"
        return [("failed calls", said)]

    def _wavering(self) -> list[tuple[str, str]]:
        """How often the reference repeated its answer, if it was asked again."""
        if not self.self_agreement or not self.self_agreement["asked"]:
            return []
        asked, same, failed = (self.self_agreement[key] for key in ("asked", "same", "failed"))
        said = f"the reference repeated {same:,} of {counted(asked, 'answer')} ({same / asked:.1%})"
        said += f"; {failed:,} had no usable answer the second time" if failed else ""
        return [("asked again", said)]

    def to_html(self) -> str:
        """The report as a self-contained HTML fragment."""
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(what)}</th>"
            f"<td>{html.escape(value)}</td></tr>"
            for what, value in self.lines()
        )
        parts = ((self.spend, "#2a7"), (max(self.reference_spend - self.spend, 0.0), "#ddd"))
        total = sum(value for value, _ in parts) or 1.0
        bar = "".join(
            f"<div style='width:{value / total:.2%};background:{color};height:10px'></div>"
            for value, color in parts
        )
        return (
            f"<div class='smartsql-report'><div style='display:flex;width:320px'>{bar}</div>"
            f"<table>{cells}</table>{path_svg(self.certificate)}{groups_html(self.certificate)}</div>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def counted(n: int, what: str) -> str:
    """A number of things: "1 row", "2,000 rows"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def format_cost(value: float, unit: str) -> str:
    """Dollars with enough digits to see them, or seconds."""
    if unit == "s":
        return f"{value:,.1f} s"
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.3g}"


def lost_money(usd: float) -> str:
    """What failed calls cost of a sum, to be said after it; empty where it is nothing."""
    return f" ({format_cost(usd, 'usd')} of it for failed calls)" if usd else ""


def report_from_dict(values: dict[str, Any]) -> Report:
    """Read a report back.

    Raises:
        ValueError: it is not a report of this format.
    """
    if values.get("format") != FORMAT:
        raise ValueError(f"report format {values.get('format')!r}, expected {FORMAT}")
    try:
        models = tuple(
            ModelReport(**{**m, "served_by": tuple(m["served_by"])}) for m in values["models"]
        )
        lists = {key: tuple(values.get(key, ())) for key in ("notes", "groups", "drift")}
        return Report(**{**values, **lists, "models": models})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a report: {error}") from error
