"""Contacts' background work: hear events, send the outbox, make leads of forms."""

from libs.shared.runtime import Worker, run_worker
from services.contacts.leads.webhook_intake import FORMS
from services.contacts.settings import ContactsSettings
from services.contacts.subscriptions import SUBSCRIPTIONS

TIMERS = (FORMS,)

if __name__ == "__main__":
    run_worker(Worker("contacts", ContactsSettings(), SUBSCRIPTIONS, TIMERS))
