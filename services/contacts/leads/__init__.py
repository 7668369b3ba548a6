"""Leads: somebody asks for contact, by form, API or message."""
