"""Contacts' background work: hear events, send the outbox."""

from libs.shared.runtime import Worker, run_worker
from services.contacts.settings import ContactsSettings
from services.contacts.subscriptions import SUBSCRIPTIONS

if __name__ == "__main__":
    run_worker(Worker("contacts", ContactsSettings(), SUBSCRIPTIONS))
