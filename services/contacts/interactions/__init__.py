"""Interactions: what happened with a client, what is planned, what was promised."""
