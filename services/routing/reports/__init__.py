"""What a supervisor asks afterwards and beforehand: why, how fast, how fairly, and what if."""
