"""E-mail addresses: kept as they were given, compared without regard to case."""

from email_validator import EmailNotValidError, validate_email

from libs.shared.errors import Invalid


class EmailRefused(Invalid):
    """This is not an e-mail address that mail could be sent to."""

    code = "email-invalid"
    ru = "Это не похоже на адрес электронной почты."


def normalise(text: str, pointer: str = "/email") -> str:
    """The address with its domain in lower case; addresses in other scripts are fine.

    Raises:
        EmailRefused: No mail could be sent there. Whether the domain exists is not asked.
    """
    try:
        return validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError:
        raise EmailRefused(pointer=pointer) from None


def search_key(address: str) -> str:
    """What two spellings of one address have in common."""
    return address.casefold()
