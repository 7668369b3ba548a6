"""Pages a person opens in the browser: where everything is, and what mail came.

Whatever a service sent is shown as text: every value passes through `escape`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from string import Template

from deploy.local.mailbox import Mail
from deploy.local.second_channel import StoredMessage

# Nothing is loaded and no script runs, whatever a mail contains.
SECURITY_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

_TITLES = {
    "contacts": "Клиенты, сделки, встречи, лиды",
    "scoring": "Сегменты и оценки клиентов",
    "routing": "Распределение лидов по менеджерам",
    "notifications": "Напоминания и отправка",
}

_PAGE = Template("""<!doctype html>
<html lang="ru">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title — База</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
         color: #1d2433; background: #fbfbfa }
  h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
  nav a { margin-right: 1rem } a { color: #0b5cad }
  table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
           border-bottom: 1px solid #e3e3df }
  th { font-weight: 600; color: #5b6475 }
  pre { white-space: pre-wrap; background: #fff; border: 1px solid #e3e3df; padding: 1rem }
  .empty, time { color: #5b6475 }
</style>
</head>
<body>
<nav><a href="/">База</a><a href="/mail">Почта и сообщения</a></nav>
<h1>$title</h1>
$body
</body>
</html>
""")


def index_page(apis: Mapping[str, str], *, issuer: str) -> str:
    """What runs here.

    Args:
        apis: Base URL of each service's API by the service's name.
        issuer: Base URL of the token issuer.
    """
    services = _table(
        ("Сервис", "Что делает", "OpenAPI"),
        [
            (escape(name), escape(_TITLES.get(name, "")), _link(f"{url}/docs"))
            for name, url in apis.items()
        ],
    )
    request = (
        f"curl -s {issuer}/token -H 'Content-Type: application/json' \\\n"
        """  -d '{"subject": "anna", "roles": ["supervisor"]}'"""
    )
    return _page(
        "Что где работает",
        f"<h2>API сервисов</h2>{services}"
        "<h2>События</h2><p>Документ AsyncAPI: " + _link("/asyncapi.json") + "</p>"
        "<h2>Письма и второй канал</h2><p>"
        f"{_link('/mail')} — страница, {_link('/mail.json')} и "
        f"{_link('/second-channel/messages.json')} — то же для программ</p>"
        f"<h2>Токен для проб</h2><p>Ключи: {_link('/.well-known/jwks.json')}</p>"
        f"<pre>{escape(request)}</pre>",
    )


def mail_page(mails: Iterable[Mail], messages: Iterable[StoredMessage]) -> str:
    """Lists both channels, the latest first."""
    mail_rows = [
        (
            _time(mail.received_at),
            escape(", ".join(mail.recipients)),
            f'<a href="/mail/{escape(mail.id)}">{escape(mail.subject or "(без темы)")}</a>',
        )
        for mail in mails
    ]
    message_rows = [
        (_time(message.received_at), escape(message.to), escape(message.text))
        for message in messages
    ]
    return _page(
        "Почта и сообщения",
        f"<h2>Письма: {len(mail_rows)}</h2>"
        + _table(("Когда", "Кому", "Тема"), mail_rows[::-1], empty="Писем ещё не было.")
        + f"<h2>Второй канал: {len(message_rows)}</h2>"
        + _table(("Когда", "Кому", "Текст"), message_rows[::-1], empty="Сообщений ещё не было."),
    )


def single_mail_page(mail: Mail) -> str:
    rows = [
        ("От кого", escape(mail.sender)),
        ("Кому", escape(", ".join(mail.recipients))),
        ("Получено", _time(mail.received_at)),
        ("Message-ID", escape(mail.message_id)),
    ]
    return _page(mail.subject or "(без темы)", _table((), rows) + f"<pre>{escape(mail.text)}</pre>")


def reschedule_page(interaction_id: str) -> str:
    """Where the link in a reminder leads: the site's own page would stand here."""
    return _page(
        "Перенос встречи",
        f"<p>Здесь клиент выбирает другое время встречи <code>{escape(interaction_id)}</code>; "
        "сайт компании переносит её через POST /v1/interactions/…/move.</p>",
    )


def missing_page() -> str:
    return _page("Такого письма нет", f"<p>{_link('/mail')}</p>")


def _page(title: str, body: str) -> str:
    return _PAGE.substitute(title=escape(title), body=body)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], *, empty: str = "") -> str:
    cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not cells:
        return f'<p class="empty">{empty}</p>'
    titles = "".join(f"<th>{title}</th>" for title in head)
    heading = f"<tr>{titles}</tr>" if titles else ""
    return f"<table>{heading}{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _link(url: str) -> str:
    return f'<a href="{escape(url)}">{escape(url)}</a>'


def _time(moment: datetime) -> str:
    return f"<time>{escape(moment.strftime('%d.%m.%Y %H:%M:%S'))} UTC</time>"
