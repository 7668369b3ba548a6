"""What closing a deal takes: money for a won one, a reason of the company's list for a lost one."""

from collections.abc import Iterable

from libs.shared.errors import Invalid


class AmountMissing(Invalid):
    """A won deal needs `amount_minor` and `currency`."""

    code = "amount-missing"
    ru = "Для выигранной сделки нужны amount_minor и currency."


class LossWithoutReason(Invalid):
    """A lost deal needs a reason."""

    code = "reason-missing"
    ru = "Для проигранной сделки нужна причина."


class ReasonUnknown(Invalid):
    """This reason is not in the company's list."""

    code = "reason-unknown"
    ru = "Такой причины нет в списке компании."


def demand_reason(reason: str, known: Iterable[str]) -> None:
    """Check a reason against the policy in force.

    Raises:
        ReasonUnknown: It is not in the list; `known` says what is.
    """
    if reason not in known:
        raise ReasonUnknown(pointer="/reason", known=sorted(known))
