"""The four services of Baza. None imports another; they speak through events."""
