"""Personal data in Korean texts by their patterns: counted, and masked where that is asked for.

Patterns find what is written as it usually is. A name, or a number without its usual form, is not found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

_POSSIBLE = re.compile(r"\d{2}|@")  # nearly all texts without personal data have neither
_EDGE = r"(?<![0-9A-Za-z\-])"
_RESIDENT = re.compile(_EDGE + r"(\d{2})(\d{2})(\d{2})(\s?-\s?)?([1-8])(\d{6})(?![0-9\-])")
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_CENTURIES = {"1": 1900, "2": 1900, "3": 2000, "4": 2000, "5": 1900, "6": 1900, "7": 2000, "8": 2000}
_WITHOUT_CHECK = date(2020, 10, 1)  # numbers given since then have no check digit
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])", re.ASCII)
_PHONE = re.compile(
    r"(?<![0-9\-])(?:(?:\+82[\s-]?|0)1[016789][\s.-]?\d{3,4}[\s.-]?\d{4}"
    r"|(?:\(0(?:2|[3-6][1-5]|70)\)\s?|(?:\+82[\s-]?|0)(?:2|[3-6][1-5]|70)[\s.-])\d{3,4}[\s.-]\d{4})(?![0-9\-])"
)
_BANKS = (
    "국민", "신한", "우리", "하나", "농협", "기업", "제일", "씨티", "카카오뱅크", "케이뱅크", "토스뱅크", "새마을금고",
    "우체국", "수협", "신협", "부산", "대구", "광주", "전북", "경남", "제주", "산업", "KB", "NH", "IBK", "SC",
)  # fmt: skip
_ACCOUNT = re.compile(
    rf"(?:(?:{'|'.join(_BANKS)})(?:은행)?|계좌(?:\s?번호)?|입금)[^0-9\n]{{0,12}}?"
    r"((?<![0-9\-])\d{2,6}-\d{2,6}-\d{2,7}(?:-\d{1,3})?(?![0-9\-])|(?<=[\s:：])\d{11,14}(?![0-9\-]))"
)
_REGIONS = (
    "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|제주|충북|충남|전북|전남|경북|경남|"
    "충청[북남]|전라[북남]|경상[북남]"
)
_ADDRESS = re.compile(
    rf"(?:{_REGIONS})(?:특별시|광역시|특별자치시|특별자치도|시|도)?\s+(?:[가-힣]{{1,8}}[시군구]\s+){{1,2}}"
    r"(?:[가-힣]{1,8}[읍면]\s+)?[가-힣0-9·]{1,12}(?:대로|로|길|동|리|가)(?:\s?\d{1,4}번?길)?\s?\d{1,5}(?:-\d{1,4})?(?![0-9])"
)

RESIDENT, PHONE, ACCOUNT, ADDRESS, EMAIL = "주민등록번호", "전화번호", "계좌번호", "주소", "이메일"


@dataclass(frozen=True)
class PersonalData:
    """Finds personal data in values of JSON.

    Attributes:
        masks: Whether what is found is replaced by its kind in brackets, such as `[전화번호]`.
    """

    masks: bool

    def value(self, value: Any) -> tuple[Any, Counter[str]]:
        """Return a value with its texts masked, or as it is, and how often each kind was found."""
        found = Counter[str]()
        if isinstance(value, str):
            masked = _masked(value, found)
            return masked if self.masks else value, found
        if isinstance(value, list | tuple):
            items = [self._counted(item, found) for item in value]
            return items if self.masks else value, found
        if isinstance(value, dict):
            made = {key: self._counted(item, found) for key, item in value.items()}
            return made if self.masks else value, found
        return value, found

    def _counted(self, value: Any, found: Counter[str]) -> Any:
        made, own = self.value(value)
        found.update(own)
        return made


def _masked(text: str, found: Counter[str]) -> str:
    """Return a text with personal data replaced by their kind, and count them in `found`."""
    if not _POSSIBLE.search(text):
        return text
    replacers: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
        (EMAIL, _EMAIL, _any), (RESIDENT, _RESIDENT, _is_resident_number), (ACCOUNT, _ACCOUNT, _any),
        (PHONE, _PHONE, _any), (ADDRESS, _ADDRESS, _any),
    )  # fmt: skip
    for kind, pattern, is_one in replacers:
        text = pattern.sub(partial(_replaced, kind=kind, is_one=is_one, found=found), text)
    return text


def _replaced(match: re.Match[str], kind: str, is_one: Callable[[re.Match[str]], bool], found: Counter[str]) -> str:
    if not is_one(match):
        return match[0]
    found[kind] += 1
    before = match[0][: match.start(1) - match.start()] if kind == ACCOUNT else ""  # the bank's name stays
    return f"{before}[{kind}]"


def _any(match: re.Match[str]) -> bool:
    return True


def _is_resident_number(match: re.Match[str]) -> bool:
    """Return whether a number begins with a date of birth, and is written with a hyphen or has its check digit.

    Numbers that were given since October 2020 have none, and do not say so: with a hyphen the date is enough. Without
    one, thirteen digits may be anything, so that only those of births since then need no check digit.
    """
    year, month, day, hyphen, sex, rest = match.groups()
    try:
        born = date(_CENTURIES[sex] + int(year), int(month), int(day))
    except ValueError:
        return False
    digits = [int(digit) for digit in f"{year}{month}{day}{sex}{rest}"]
    is_checked = (11 - sum(w * d for w, d in zip(_WEIGHTS, digits, strict=False)) % 11) % 10 == digits[-1]
    return born <= date.today() and (hyphen is not None or is_checked or born >= _WITHOUT_CHECK)
