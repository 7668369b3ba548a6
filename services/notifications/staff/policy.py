"""Who of the staff is told of what, by which channel, with which template."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.policies import Policy
from services.notifications.reminder_policy import Channel

Kind = Literal["lead_unanswered", "touch_due", "touch_overdue"]
Template = Annotated[str, Field(pattern=r"^staff_[a-z0-9_]{1,56}$")]


class AlertRule(BaseModel):
    """One kind of people told of one kind of thing.

    Attributes:
        to: The manager whose lead or client it is, or everybody who is a supervisor.
        after_minutes: Waited for, since it happened; what is done by then is not told.
        stale_after_minutes: What could not be told for so long is not told any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    to: Literal["manager", "supervisors"]
    channel: Channel
    template: Template
    after_minutes: Annotated[int, Field(strict=True, ge=0, le=43_200)] = 0
    stale_after_minutes: Annotated[int, Field(strict=True, ge=1, le=43_200)] = 12 * 60

    @model_validator(mode="after")
    def _is_told_before_it_is_stale(self) -> Self:
        if self.stale_after_minutes <= self.after_minutes:
            raise ValueError("it would be stale before it is told")
        return self


class StaffAlertPolicy(Policy, name="staff_alerts"):
    """Leads at once by the second channel, touches in one letter when the day has begun or is over.

    A change holds for what is heard from then on.
    """

    rules: Annotated[tuple[AlertRule, ...], Field(max_length=30)] = (
        AlertRule(
            kind="lead_unanswered",
            to="manager",
            channel="second_channel",
            template="staff_lead_unanswered",
            stale_after_minutes=60,
        ),
        AlertRule(
            kind="lead_unanswered",
            to="supervisors",
            channel="second_channel",
            template="staff_lead_unanswered",
            after_minutes=2,
            stale_after_minutes=60,
        ),
        AlertRule(
            kind="touch_due",
            to="manager",
            channel="email",
            template="staff_touches_due",
            after_minutes=5,
        ),
        AlertRule(
            kind="touch_overdue",
            to="manager",
            channel="email",
            template="staff_touches_overdue",
            after_minutes=5,
            stale_after_minutes=24 * 60,
        ),
        AlertRule(
            kind="touch_overdue",
            to="supervisors",
            channel="email",
            template="staff_touches_overdue",
            after_minutes=5,
            stale_after_minutes=24 * 60,
        ),
    )

    @model_validator(mode="after")
    def _rules_differ(self) -> Self:
        keys = [(rule.kind, rule.to, rule.channel) for rule in self.rules]
        if len(set(keys)) != len(keys):
            raise ValueError("two rules tell the same people of the same by the same channel")
        return self
