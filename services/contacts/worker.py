"""Contacts' background work: hear events, send the outbox, make leads of forms, forget views."""

from libs.shared.runtime import Worker, run_worker
from services.contacts.leads.webhook_intake import FORMS
from services.contacts.pages.forgetting import forget_old_views
from services.contacts.settings import ContactsSettings
from services.contacts.subscriptions import SUBSCRIPTIONS

EXTRAS = (forget_old_views,)
TIMERS = (FORMS,)

if __name__ == "__main__":
    run_worker(Worker("contacts", ContactsSettings(), SUBSCRIPTIONS, TIMERS, extras=EXTRAS))
