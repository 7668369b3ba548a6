"""What can be wrong, as RFC 9457 problems with stable codes.

A `DomainError` is raised wherever a rule is broken; `http.py` renders it. The class docstring's
first line is the English detail, `ru` the Russian one, `code` is stable and safe to switch on.
"""

from typing import Any, ClassVar


class DomainError(Exception):
    """The request cannot be carried out.

    Attributes:
        status: HTTP status of the problem.
        code: Stable, kebab-case; also the last part of the problem's `type`.
        ru: The detail in Russian, shown when the caller prefers it (Accept-Language).
        members: Extra members of the problem document (ids, current state), JSON-ready.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad-request"
    ru: ClassVar[str] = "Запрос нельзя выполнить."

    def __init__(self, detail: str | None = None, **members: Any) -> None:
        super().__init__(detail or self.summary())
        self.detail = detail or self.summary()
        self.members = members

    @classmethod
    def summary(cls) -> str:
        """First line of the class docstring."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


class NotFound(DomainError):
    """There is nothing with this id."""

    status = 404
    code = "not-found"
    ru = "Ничего не найдено по этому идентификатору."


class Conflict(DomainError):
    """The current state does not allow this."""

    status = 409
    code = "conflict"
    ru = "Текущее состояние не позволяет это сделать."


class Invalid(DomainError):
    """A value is not acceptable.

    `errors` is a list of {"pointer": JSON Pointer, "detail": text, "code": text}.
    """

    status = 422
    code = "invalid"
    ru = "Недопустимое значение."

    def __init__(
        self, detail: str | None = None, *, pointer: str | None = None, **members: Any
    ) -> None:
        if pointer is not None:
            members["errors"] = [
                {"pointer": pointer, "detail": detail or self.summary(), "code": self.code}
            ]
        super().__init__(detail, **members)


class Unauthenticated(DomainError):
    """A valid bearer token is needed."""

    status = 401
    code = "unauthenticated"
    ru = "Нужен действительный токен доступа."


class Forbidden(DomainError):
    """Your role does not allow this."""

    status = 403
    code = "forbidden"
    ru = "Ваша роль не позволяет это сделать."


class PreconditionRequired(DomainError):
    """Send If-Match with the ETag you last saw."""

    status = 428
    code = "if-match-required"
    ru = "Укажите If-Match с последним известным вам ETag."


class PreconditionFailed(DomainError):
    """It has changed since you read it; read it again."""

    status = 412
    code = "etag-stale"
    ru = "Запись изменилась с тех пор, как вы её читали; прочитайте её заново."
