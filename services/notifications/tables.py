"""The tables of notifications, apart from those of every other service."""

from sqlalchemy.orm import DeclarativeBase

from libs.shared.database import new_metadata


class Base(DeclarativeBase):
    """What all models of notifications have in common."""

    metadata = new_metadata()
