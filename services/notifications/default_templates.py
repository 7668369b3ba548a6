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

SHIPPED: dict[TemplateKey, Text] = {
    TemplateKey("meeting_reminder", "email", "ru"): Text("Напоминание: {{ topic }}", _MAIL_RU),
    TemplateKey("meeting_reminder", "second_channel", "ru"): Text("", _TEXT_RU),
    TemplateKey("meeting_reminder", "email", "en"): Text("Reminder: {{ topic }}", _MAIL_EN),
    TemplateKey("meeting_reminder", "second_channel", "en"): Text("", _TEXT_EN),
}
