"""The templates that Baza ships: version 1 of each, until a company writes its own."""

from typing import NamedTuple


class TemplateKey(NamedTuple):
    """What a template is known by."""

    code: str
    channel: str
    language: str


class Text(NamedTuple):
    """A template's source. The second channel has no subject."""

    subject: str
    body: str


_MAIL_RU = """\
Здравствуйте, {{ client_name }}!

Напоминаем о {% if kind == "call" %}звонке{% else %}встрече{% endif %}: {{ starts_at }}.
Тема: {{ topic }}.
{% if reschedule_link %}
Если время не подходит, выберите другое: {{ reschedule_link }}
{% endif %}
Хорошего дня!
"""

_TEXT_RU = (
    "{{ client_name }}, напоминаем: {{ starts_at }} — {{ topic }}."
    "{% if reschedule_link %} Перенести: {{ reschedule_link }}{% endif %}"
)

_MAIL_EN = """\
Hello {{ client_name }},

this is a reminder of our {% if kind == "call" %}call{% else %}meeting{% endif %}: {{ starts_at }}.
Topic: {{ topic }}.
{% if reschedule_link %}
If the time does not suit you, choose another: {{ reschedule_link }}
{% endif %}
Have a good day!
"""

_TEXT_EN = (
    "{{ client_name }}, a reminder: {{ starts_at }}, {{ topic }}."
    "{% if reschedule_link %} Reschedule: {{ reschedule_link }}{% endif %}"
)

_UNANSWERED_RU = (
    "{{ recipient_name }}, заявки без ответа: {{ count }} ({{ clients }}). Первая ждёт с:"
    " {{ since }}. Чья очередь: {{ managers }}."
)
_UNANSWERED_EN = (
    "{{ recipient_name }}, leads without an answer: {{ count }} ({{ clients }}). The first waits"
    " since {{ since }}. Whose turn it is: {{ managers }}."
)
_TOUCHES_DUE_RU = """\
{{ recipient_name }}, сегодня нужно связаться с клиентами, всего: {{ count }}.

{{ clients }}
"""
_TOUCHES_DUE_EN = """\
{{ recipient_name }}, clients to be spoken with today: {{ count }}.

{{ clients }}
"""
_TOUCHES_OVERDUE_RU = """\
{{ recipient_name }}, срок касания прошёл, а с клиентами никто не связался, всего: {{ count }}.

{{ clients }}

Ответственные: {{ managers }}.
"""
_TOUCHES_OVERDUE_EN = """\
{{ recipient_name }}, clients whom nobody has spoken with in time: {{ count }}.

{{ clients }}

Whose clients they are: {{ managers }}.
"""

SHIPPED: dict[TemplateKey, Text] = {
    TemplateKey("meeting_reminder", "email", "ru"): Text("Напоминание: {{ topic }}", _MAIL_RU),
    TemplateKey("meeting_reminder", "second_channel", "ru"): Text("", _TEXT_RU),
    TemplateKey("meeting_reminder", "email", "en"): Text("Reminder: {{ topic }}", _MAIL_EN),
    TemplateKey("meeting_reminder", "second_channel", "en"): Text("", _TEXT_EN),
} | {
    TemplateKey(code, channel, language): Text(subject if channel == "email" else "", body)
    for code, language, subject, body in (
        ("staff_lead_unanswered", "ru", "Заявки без ответа: {{ count }}", _UNANSWERED_RU),
        ("staff_lead_unanswered", "en", "Leads without an answer: {{ count }}", _UNANSWERED_EN),
        ("staff_touches_due", "ru", "Касания на сегодня: {{ count }}", _TOUCHES_DUE_RU),
        ("staff_touches_due", "en", "Touches of today: {{ count }}", _TOUCHES_DUE_EN),
        ("staff_touches_overdue", "ru", "Просроченные касания: {{ count }}", _TOUCHES_OVERDUE_RU),
        ("staff_touches_overdue", "en", "Overdue touches: {{ count }}", _TOUCHES_OVERDUE_EN),
    )
    for channel in ("email", "second_channel")
}
