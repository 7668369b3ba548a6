"""What scoring reads from its environment: what every service reads."""

from libs.shared.settings import ServiceSettings


class ScoringSettings(ServiceSettings):
    """Scoring needs nothing of its own; its rules are policy."""
