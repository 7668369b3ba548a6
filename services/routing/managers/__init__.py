"""The managers: who they are, when they are there, and what happens when they are not."""
