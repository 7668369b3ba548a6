"""What routing reads from its environment: what every service reads."""

from libs.shared.settings import ServiceSettings


class RoutingSettings(ServiceSettings):
    """Routing needs nothing of its own; windows and limits are policy."""
