"""What the demo shows a person: progress while it works, tables at the end."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from deploy.local.demo.report import Report
from deploy.local.suite import Suite


def show(console: Console, report: Report) -> None:
    """The tables at the end."""
    console.print(_segments(report))
    console.print(_queue(report))
    console.print(_rules(report))
    console.print(_leads(report))
    console.print(_events(report))


def _segments(report: Report) -> Table:
    facts = report.purchases
    table = Table(
        title=f"CDNOW: {facts.clients:,} clients by segment on 1 July 1998 "
        f"({facts.deals_per_second:,.0f} deals a second, REST to broker)"
    )
    table.add_column("segment")
    table.add_column("сегмент")
    for name in ("clients", "share of money", "mean recency, days", "mean frequency"):
        table.add_column(name, justify="right")
    for line in (facts.table or {"segments": []})["segments"]:
        table.add_row(
            line["segment"],
            line["label"],
            f"{line['clients']:,}",
            f"{line['money_share']:.1%}",
            f"{line['mean_recency_days']:.0f}",
            f"{line['mean_frequency']:.1f}",
        )
    return table


def _queue(report: Report) -> Table:
    facts = report.purchases
    names = facts.names or {}
    table = Table(title="Whom to call first")
    table.add_column("#", justify="right")
    table.add_column("client")
    table.add_column("why")
    for entry in facts.queue:
        client = names.get(entry["client_id"], entry["client_id"])
        table.add_row(str(entry["place"]), f"Покупатель {client}", entry["reason"])
    return table


def _rules(report: Report) -> Table:
    facts = report.rules
    table = Table(
        title=f"New rules: {facts.previewed:,} moves previewed, {facts.moved:,} made; the largest"
    )
    for name in ("from", "to"):
        table.add_column(name)
    for name in ("clients", "money"):
        table.add_column(name, justify="right")
    for move in facts.moves:
        money = f"{move['monetary_minor'] / 100:,.0f}"
        table.add_row(move["old_segment"], move["new_segment"], f"{move['clients']:,}", money)
    return table


def _leads(report: Report) -> Table:
    leads, reminders = report.leads, report.reminders
    table = Table(title="Leads and reminders")
    table.add_column("what")
    table.add_column("how many", justify="right")
    for name, value in leads.report().items():
        table.add_row(f"leads {name.replace('_', ' ')}", str(value))
    for name, value in leads.by_manager.items():
        table.add_row(f"  {name}", str(value))
    for name, value in reminders.report().items():
        table.add_row(f"reminders {name.replace('_', ' ')}", str(value))
    return table


def _events(report: Report) -> Table:
    table = Table(title="Said in the broker, and where the time went")
    table.add_column("topic")
    table.add_column("events", justify="right")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    topics: list[Any] = [(name, f"{count:,}") for name, count in sorted(report.events.items())]
    parts: list[Any] = [(name, f"{value:.1f}") for name, value in report.seconds.items()]
    for number in range(max(len(topics), len(parts))):
        left = topics[number] if number < len(topics) else ("", "")
        right = parts[number] if number < len(parts) else ("", "")
        table.add_row(*left, *right)
    return table


def verdict(console: Console, faults: Iterable[str]) -> None:
    """Whether every fact holds."""
    found = list(faults)
    if found:
        console.print(Panel("\n".join(found), title="NOT as it must be", style="red"))
    else:
        console.print(Panel("Every fact holds.", style="green"))


def where_to_look(console: Console, suite: Suite) -> None:
    """Addresses for somebody who wants to look around."""
    console.print(f"start page   {suite.outside_url}/")
    for service, url in suite.urls.items():
        console.print(f"OpenAPI      {url}/docs   ({service})")
    console.print(f"AsyncAPI     {suite.outside_url}/asyncapi.json")
    console.print(f"mail         {suite.outside_url}/mail")
