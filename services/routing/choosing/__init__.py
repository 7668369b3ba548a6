"""Whom a lead goes to, decided by nothing but what it is given: no database, no clock."""
