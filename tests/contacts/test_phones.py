"""Phone numbers: any spelling in, one number out, and never a wrong one."""

import phonenumbers
import pytest
from email_validator import EmailNotValidError
from hypothesis import example, given
from hypothesis import strategies as st

from services.contacts.clients import emails, phones

PREFIXES = ("+7", "8", "7", "")
NUMBER = "+79123456789"


@pytest.mark.parametrize(
    "text",
    [
        "8 (912) 345-67-89",
        "+7912 345 67 89",
        "89123456789",
        "79123456789",
        "9123456789",
        "9123456789.0",
        "79123456789.0",
        "'+79123456789",
        "８９１２３４５６７８９",  # full-width
        "＋7（912）345－67－89",
        "8.912.345.67.89",
        "8\u00a0912\u2011345\u201367\u221289",
        "+7 (912) 345-67-89 доб. 12",
        "8 912 345 67 89, доб. 12",
        "8 912 345 67 89 ext 7",
        "  89123456789\t",
    ],
)
def test_every_spelling_of_a_number_is_read(text: str) -> None:
    assert phones.numbers_in(text) == [NUMBER]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("'+77021234567", "+77021234567"),
        ("+44 20 7946 0958", "+442079460958"),
        ("8 (495) 123-45-67", "+74951234567"),
        ("8 800 555-35-35", "+78005553535"),
    ],
)
def test_other_countries_and_cities_are_read(text: str, number: str) -> None:
    assert phones.normalise(text) == number


@pytest.mark.parametrize("join", [", ", "; ", "/", " / ", "\n", "|"])
def test_two_numbers_of_one_cell_are_two(join: str) -> None:
    assert phones.numbers_in(f"89123456789{join}8 903 123-45-67") == [NUMBER, "+79031234567"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("много", phones.PhoneUnreadable),
        ("8-800-FLOWERS", phones.PhoneUnreadable),
        ("8 912 345 67 89 Анна", phones.PhoneUnreadable),
        ("8 (495) 123-45-67/68", phones.PhoneUnreadable),
        ("9.12346E+09", phones.PhoneUnreadable),
        ("+", phones.PhoneUnreadable),
        ("89123+456789", phones.PhoneUnreadable),
        ("", phones.PhoneUnreadable),
        ("12345", phones.PhoneTooShort),
        ("1" * 16, phones.PhoneTooLong),
        ("0000000000", phones.PhoneImpossible),
        ("+7 000 000-00-00", phones.PhoneImpossible),
        ("891234567891", phones.PhoneImpossible),
        ("+999123456789", phones.PhoneImpossible),
        ("9301234567x" + "1" * 300, phones.PhoneTooLong),
    ],
)
def test_what_is_no_number_is_refused_with_a_reason(
    text: str, error: type[phones.PhoneRefused]
) -> None:
    with pytest.raises(error):
        phones.numbers_in(text)


@given(
    prefix=st.sampled_from(PREFIXES),
    digits=st.one_of(
        st.from_regex(r"9[0-9]{9}", fullmatch=True),
        st.from_regex(r"930[0-9]{7}", fullmatch=True),
        st.from_regex(r"[0-9]{7,13}", fullmatch=True),
    ),
)
def test_the_fast_way_never_disagrees_with_the_numbering_plans(prefix: str, digits: str) -> None:
    plain = prefix + digits
    if not 7 <= len(plain.lstrip("+")) <= 15:
        return
    try:
        slow: str | None = phones.by_phonenumbers(plain, "RU")
    except phones.PhoneImpossible:
        slow = None
    try:
        fast: str | None = phones.normalise(plain)
    except phones.PhoneRefused:
        fast = None
    assert fast == slow


@given(digits=st.from_regex(r"9[1268][0-9]{8}", fullmatch=True), data=st.data())
def test_separators_change_nothing(digits: str, data: st.DataObject) -> None:
    separators = [
        data.draw(st.sampled_from(["", " ", "-", ".", "(", ")", "\u00a0"])) for _ in digits
    ]
    text = "8" + "".join(map("".join, zip(separators, digits, strict=True)))
    assert phones.normalise(text) == "+7" + digits


@given(st.text(max_size=40))
def test_any_text_gives_good_numbers_or_a_reason(text: str) -> None:
    try:
        found = phones.numbers_in(text)
    except phones.PhoneRefused:
        return
    assert found
    for number in found:
        parsed = phonenumbers.parse(number)
        assert phonenumbers.is_valid_number(parsed)
        assert phones.normalise(phones.display(number)) == number


@example(local="WWW", domain="example.com")
@given(
    local=st.one_of(
        st.from_regex(r"[A-Za-z0-9_+%.-]{1,66}", fullmatch=True), st.text(min_size=1, max_size=9)
    ),
    domain=st.sampled_from(
        [
            "Example.COM",
            "почта.рф",
            "xn--80a1acny.xn--p1ai",
            "localhost",
            "a.test",
            "a..b",
            "b.co",
            "",
        ]
    ),
)
def test_the_fast_way_never_disagrees_with_the_mail_rules(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    try:
        slow: str | None = emails.by_validator(address.strip())
    except EmailNotValidError:
        slow = None
    try:
        fast: str | None = emails.normalise(address)
    except emails.EmailRefused:
        fast = None
    assert fast == slow
