"""A template becomes a text, or it is refused: nothing unresolved ever reaches anybody.

Refused are an unknown variable, one that has no value for this client, whatever looks like a
placeholder that was left over (`[Имя]`, `{{`, `{name}`), an empty text and one that is too long.
Rendering is bounded, whatever the template does. Pure: no clock, no database.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime
from liquid import BoundTemplate, Environment, FalsyStrictUndefined
from liquid.exceptions import LiquidError, ResourceLimitError, UndefinedError

from libs.shared.errors import Invalid
from services.notifications.default_templates import Text

VARIABLES = {
    "client_name": "Имя или название клиента",
    "topic": "Тема встречи или звонка",
    "kind": "Вид: meeting или call",
    "starts_at": "Дата и время начала словами, в часовом поясе компании",
    "reschedule_link": "Ссылка для переноса; может отсутствовать, проверяйте через if",
}
SAMPLE = {
    "client_name": "Анна Петрова",
    "topic": "Обсуждение договора",
    "kind": "meeting",
    "starts_at": "понедельник, 2 марта 2026 г. в 12:00 (Москва)",
    "reschedule_link": "https://example.test/reschedule/1",
}
STAFF_VARIABLES = {
    "recipient_name": "Имя сотрудника, которому идёт сообщение",
    "count": "Сколько заявок или касаний",
    "clients": "Имена клиентов через запятую, первые десять",
    "managers": "Чьи это заявки или клиенты",
    "since": "Когда случилось первое из них, словами, в часовом поясе компании",
}
STAFF_SAMPLE = {
    "recipient_name": "Ольга Смирнова",
    "count": "2",
    "clients": "Анна Петрова, Иван Сидоров",
    "managers": "Пётр Кузнецов",
    "since": "понедельник, 2 марта 2026 г. в 12:00 (Москва)",
}
_STAFF = "staff_"  # what the codes of templates for staff begin with
KIND_LABELS = {
    "ru": {"meeting": "Встреча", "call": "Звонок"},
    "en": {"meeting": "Meeting", "call": "Call"},
}
MAX_SUBJECT = 250
MAX_BODY = 8000
_PATTERNS = {"ru": "EEEE, d MMMM y 'г.' 'в' HH:mm (VVV)"}
_OTHER_PATTERN = "EEEE, d MMMM y, HH:mm (VVV)"
_LEFT_OVER = re.compile(r"\{\{|\}\}|\{%|%\}|\[[^\W\d_][^\]\n]{0,60}\]|\{[^\W\d][\w .-]{0,60}\}")
_LINE_BREAKERS = frozenset({"Cc", "Cs", "Zl", "Zp"})


class TemplateRefused(Invalid):
    """The template cannot become a message."""

    code = "template-refused"
    ru = "Из шаблона не получается сообщение."

    def __init__(self, reason: str, detail: str, part: str) -> None:
        super().__init__(detail, pointer=f"/{part}", reason=reason)
        self.reason = f"{reason}: {detail}"[:500]


class Rendered(NamedTuple):
    """What goes out. The second channel has no subject."""

    subject: str
    body: str


class _Limited(Environment):
    output_stream_limit = 4 * MAX_BODY  # bytes
    loop_iteration_limit = 1000
    local_namespace_limit = 64 * 1024
    context_depth_limit = 10


_environment = _Limited(undefined=FalsyStrictUndefined, strict_filters=True)


def render(text: Text, values: Mapping[str, str | None], *, channel: str) -> Rendered:
    """The message for one client.

    Args:
        values: By variable; None and blank count as unresolved.

    Raises:
        TemplateRefused: Nothing may be sent.
    """
    known = {name: value for name, value in values.items() if value and value.strip()}
    subject = single_line(_render_part(text.subject, known, "subject"))
    body = _render_part(text.body, known, "body").strip()
    if channel == "email" and not subject:
        raise TemplateRefused("empty", "a mail needs a subject", "subject")
    if not body:
        raise TemplateRefused("empty", "the text is empty", "body")
    for part, made, limit in (("subject", subject, MAX_SUBJECT), ("body", body, MAX_BODY)):
        if len(made) > limit:
            raise TemplateRefused("too_long", f"longer than {limit} characters", part)
        if _LEFT_OVER.search(made):
            raise TemplateRefused("placeholder_left", "a placeholder is left in the text", part)
    return Rendered(subject if channel == "email" else "", body)


def variables_of(code: str) -> dict[str, str]:
    """What may stand in a template with this code, with what it means."""
    return STAFF_VARIABLES if code.startswith(_STAFF) else VARIABLES


def sample_of(code: str) -> dict[str, str]:
    """An example of each variable."""
    return STAFF_SAMPLE if code.startswith(_STAFF) else SAMPLE


def check(text: Text, *, channel: str, code: str = "") -> None:
    """Refuse a template that could never become a message, before it is kept.

    Args:
        code: The template's; it decides which variables there are.

    Raises:
        TemplateRefused: It is broken, names an unknown variable or holds a raw placeholder.
    """
    for part, source in (("subject", text.subject), ("body", text.body)):
        unknown = sorted(_variables_in(source, part) - set(variables_of(code)))
        if unknown:
            raise TemplateRefused("unknown_variable", f"unknown: {', '.join(unknown)}", part)
    if channel != "email" and text.subject.strip():
        raise TemplateRefused("subject_unused", "this channel has no subject", "subject")
    render(text, sample_of(code), channel=channel)


def single_line(text: str) -> str:
    """A text without line breaks and control characters: safe in a header and in a sentence."""
    calm = (" " if unicodedata.category(letter) in _LINE_BREAKERS else letter for letter in text)
    return " ".join("".join(calm).split())


def in_words(at: datetime, zone: str, language: str) -> str:
    """Date and time as people read them: `понедельник, 2 марта 2026 г. в 12:00 (Москва)`."""
    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        locale, language = Locale.parse("en"), "en"
    pattern = _PATTERNS.get(language, _OTHER_PATTERN)
    return format_datetime(at, pattern, tzinfo=ZoneInfo(zone), locale=locale)


def _render_part(source: str, values: Mapping[str, str], part: str) -> str:
    try:
        made: str = _parsed_or_refused(source, part).render(**values)
    except UndefinedError as error:
        raise TemplateRefused("unresolved_variable", _first_line(error), part) from None
    except ResourceLimitError as error:
        raise TemplateRefused("too_long", _first_line(error), part) from None
    except LiquidError as error:
        raise TemplateRefused("broken", _first_line(error), part) from None
    return made


def _parsed_or_refused(source: str, part: str) -> BoundTemplate:
    try:
        return _parsed(source)
    except LiquidError as error:
        raise TemplateRefused("broken", _first_line(error), part) from None


def _variables_in(source: str, part: str) -> set[str]:
    try:
        return set(_parsed_or_refused(source, part).global_variables())
    except LiquidError as error:  # a part of another template: there are none here
        raise TemplateRefused("broken", _first_line(error), part) from None


@lru_cache(maxsize=256)
def _parsed(source: str) -> BoundTemplate:
    return _environment.from_string(source)


def _first_line(error: LiquidError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
