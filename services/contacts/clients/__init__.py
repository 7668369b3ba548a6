"""Client cards: one for each person or company, with their phones and their owner."""
