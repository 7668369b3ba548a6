"""E-mail addresses: kept as they were given, compared without regard to case."""

import re
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

from libs.shared.errors import Invalid


class EmailRefused(Invalid):
    """This is not an e-mail address that mail could be sent to."""

    code = "email-invalid"
    ru = "Это не похоже на адрес электронной почты."


# Local parts without quotes, in ASCII: for these only the domain has to be judged.
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9_+%-]+(?:\.[A-Za-z0-9_+%-]+)*")
_MAX_LOCAL, _MAX_ADDRESS = 64, 254


def normalise(text: str, pointer: str = "/email") -> str:
    """The address with its domain in lower case; addresses in other scripts are fine.

    Raises:
        EmailRefused: No mail could be sent there. Whether the domain exists is not asked.
    """
    address = text.strip()
    try:
        local, _, domain = address.rpartition("@")
        if (
            len(local) <= _MAX_LOCAL
            and _PLAIN_LOCAL.fullmatch(local)
            and local.lower() not in CASE_INSENSITIVE_MAILBOX_NAMES  # info, www: always lowered
        ):
            found = f"{local}@{_domain(domain)}"
            if len(found) <= _MAX_ADDRESS and found.isascii():
                return found
        return by_validator(address)
    except EmailNotValidError:
        raise EmailRefused(pointer=pointer) from None


def by_validator(address: str) -> str:
    """The address as email-validator has it.

    Raises:
        EmailNotValidError: It is none.
    """
    return validate_email(address, check_deliverability=False).normalized


@lru_cache(maxsize=10_000)
def _domain(domain: str) -> str:
    return validate_email(f"a@{domain}", check_deliverability=False).domain


def search_key(address: str) -> str:
    """What two spellings of one address have in common."""
    return address.casefold()
