"""What the company may change about cards, deals and leads while Baza runs."""

from typing import Annotated, Self

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.database import Connection
from libs.shared.field_types import Code, Flag, Text200
from libs.shared.policies import Policy, current


class PhonePolicy(Policy, name="phones"):
    """How phone numbers without a country are read."""

    default_region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "RU"  # ISO 3166-1

    @field_validator("default_region")
    @classmethod
    def _has_numbers(cls, region: str) -> str:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError("no phone numbers of this country are known")
        return region


async def phone_region(where: "AsyncSession | Connection") -> str:
    """Country of phone numbers that name none, as the policy in force has it."""
    return (await current(where, PhonePolicy)).body.default_region


class Named(BaseModel):
    """A code that events and APIs carry, and what a user reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code
    label: Text200


class Pipeline(Named):
    """A row of stages; the order is how deals usually go, not the only way they may."""

    stages: Annotated[tuple[Named, ...], Field(min_length=1, max_length=50)]


def _named(**labels: str) -> tuple[Named, ...]:
    return tuple(Named(code=code, label=label) for code, label in labels.items())


STANDARD = Pipeline(
    code="standard",
    label="Стандартная",
    stages=_named(
        first_contact="Первичный контакт",
        presentation="Презентация",
        proposal="Коммерческое предложение",
        agreement="Согласование",
        closing="Закрытие сделки",
    ),
)


class PipelinePolicy(Policy, name="pipelines"):
    """Pipelines and their stages. The first pipeline is taken where none is named."""

    pipelines: Annotated[tuple[Pipeline, ...], Field(min_length=1, max_length=50)] = (STANDARD,)

    @model_validator(mode="after")
    def _codes_are_unique(self) -> Self:
        _demand_unique("pipeline", [pipeline.code for pipeline in self.pipelines])
        for pipeline in self.pipelines:
            _demand_unique("stage", [stage.code for stage in pipeline.stages])
        return self

    def pipeline(self, code: str) -> Pipeline | None:
        """The pipeline with this code, if there is one."""
        return next((one for one in self.pipelines if one.code == code), None)


class RefusalPolicy(Policy, name="refusals"):
    """Why deals are lost; closing one as lost takes a reason of this list."""

    reasons: Annotated[tuple[Named, ...], Field(min_length=1, max_length=100)] = _named(
        price="Цена", time="Время", doubts="Сомнения", our_choice="Наш выбор"
    )

    @model_validator(mode="after")
    def _codes_are_unique(self) -> Self:
        _demand_unique("reason", [reason.code for reason in self.reasons])
        return self

    def codes(self) -> frozenset[str]:
        """The codes that may be given."""
        return frozenset(reason.code for reason in self.reasons)


Names = Annotated[tuple[Text200, ...], Field(max_length=100)]


class FormPolicy(Policy, name="forms"):
    """Which names of a form's fields mean what; only their letters and digits count."""

    name_fields: Names = ("name", "fullname", "fio", "имя", "фио", "контактноелицо")
    phone_fields: Names = ("phone", "tel", "telephone", "mobile", "телефон")
    email_fields: Names = ("email", "mail", "почта", "электроннаяпочта")
    note_fields: Names = ("note", "comment", "message", "комментарий", "сообщение")
    product_fields: Names = ("product", "товар", "услуга")
    city_fields: Names = ("city", "город")
    language_fields: Names = ("language", "lang", "locale")
    region_fields: Names = ("region", "регион", "область")
    site_fields: Names = ("site", "domain", "pageurl", "сайт")


def _demand_unique(what: str, codes: list[str]) -> None:
    if len(set(codes)) != len(codes):
        raise ValueError(f"two {what}s have the same code")


class ComplaintPolicy(Policy, name="complaints"):
    """Whether complaints are given to somebody as leads are, at once and with their clocks."""

    become_leads: Flag = True
    not_older_than_days: Annotated[int, Field(strict=True, ge=0, le=3660)] = 7


class PageViewPolicy(Policy, name="page_views"):
    """How long single views of pages are kept: so long, one that is told again counts once."""

    kept_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = 400


POLICIES: tuple[type[Policy], ...] = (
    PhonePolicy,
    PipelinePolicy,
    RefusalPolicy,
    FormPolicy,
    ComplaintPolicy,
    PageViewPolicy,
)
