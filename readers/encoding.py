"""Which encoding a text file is in, told by reading it: UTF-8, UTF-16, or what Korean Windows saves (CP949)."""

from __future__ import annotations

import codecs
from pathlib import Path

from exceptions import DataError

_CHUNK = 1 << 20
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SHOWN = 3


def find_encoding(path: Path, wanted: str | None) -> tuple[str, str]:
    """The encoding to read a file in, and a note where it is not plain UTF-8 (empty otherwise).

    `wanted` overrules what the file looks like. Raises DataError, with line numbers, where bytes are of no encoding.
    """
    if wanted is not None:
        return _check_wanted(path, wanted), ""
    with path.open("rb") as file:
        start = file.read(4096)
    for mark, name in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark) and _decodes(path, name):
            return name, "" if name == "utf-8-sig" else f"인코딩 {name.upper()}로 읽었습니다."
    for name in ("utf-16-le", "utf-16-be"):
        if _looks_like_utf16(start, name) and _decodes(path, name):
            return name, f"인코딩 {name.upper()}로 읽었습니다."
    if _decodes(path, "utf-8"):
        return "utf-8", ""
    if _decodes(path, "cp949"):
        return "cp949", "인코딩 CP949로 읽었습니다."
    rare = _rare_encoding(start)
    if rare is not None and _decodes(path, rare):
        return rare, f"인코딩 {rare}로 읽었습니다."
    raise DataError(
        "글자로 읽을 수 없는 바이트가 있습니다. UTF-8도 CP949도 아닙니다.",
        where=f"{path}, {_shown_lines(path)}",
        remedy="그 줄을 고치거나, 파일 전체의 인코딩을 알면 data.encoding에 쓰세요(예: cp949, utf-8).",
    )


def _check_wanted(path: Path, wanted: str) -> str:
    try:
        name = codecs.lookup(wanted).name
        is_text = codecs.lookup(wanted)._is_text_encoding
    except (LookupError, ValueError):
        is_text, name = False, wanted
    if not is_text:
        raise DataError(
            f"'{wanted}' 인코딩이 없습니다.",
            where="data.encoding",
            remedy="utf-8, cp949, euc-kr, utf-16 가운데 하나를 쓰세요.",
        )
    if not _decodes(path, name):
        raise DataError(
            f"{wanted} 인코딩으로 읽을 수 없는 바이트가 있습니다.",
            where=str(path),
            remedy="data.encoding을 null로 두면 파일을 읽어 알아냅니다.",
        )
    return name


def _decodes(path: Path, encoding: str) -> bool:
    """Whether the whole file is of this encoding, read in chunks."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _looks_like_utf16(start: bytes, encoding: str) -> bool:
    """Half of ASCII's bytes in UTF-16 are NUL; a UTF-8 or CP949 text has none."""
    zeros = start[1::2] if encoding == "utf-16-le" else start[0::2]
    return len(start) >= 4 and zeros.count(0) > len(zeros) // 5


def _rare_encoding(start: bytes) -> str | None:
    """charset-normalizer's word for what is neither UTF nor CP949, where it is a Korean codec."""
    import charset_normalizer

    best = charset_normalizer.from_bytes(start).best()
    korean = {"johab", "iso2022_kr", "utf_32", "utf_16", "utf_7", "mac_korean"}
    return best.encoding if best is not None and best.encoding in korean else None


def _shown_lines(path: Path) -> str:
    """The first lines that are neither UTF-8 nor CP949; where each is one of them, the lines of the rarer."""
    broken: list[int] = []
    cp949: list[int] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if _is_valid(line, "utf-8"):
                continue
            (cp949 if _is_valid(line, "cp949") else broken).append(number)
            if len(broken) > _SHOWN:
                break
    lines = broken or cp949
    more = " 등" if len(lines) > _SHOWN else ""
    mixed = "" if broken else " (CP949가 섞임)"
    return f"{', '.join(map(str, lines[:_SHOWN]))}번째 줄{more}{mixed}"


def _is_valid(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
