"""Deals: from the first contact to money, or to a reason why not."""
