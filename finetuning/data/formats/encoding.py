"""Which encoding a text file is in, found by reading it: UTF-8, UTF-16, or what Korean Windows saves (CP949)."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from pathlib import Path

from exceptions import DataError
from finetuning.korean.particles import with_particle

_CHUNK = 1 << 20
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16: it begins with that one's mark
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_KOREAN = frozenset({"johab", "iso2022_kr"})
_SHOWN = 3
_NO_TEXT = "텍스트로 읽을 수 없는 바이트가 있습니다. UTF-8도 CP949도 아닙니다."


def find_encoding(path: Path, wanted: str | None) -> tuple[str, str]:
    """Find the encoding of a text file.

    Args:
        path: The file.
        wanted: `data.encoding`, which overrules detection.

    Returns:
        The encoding as Python names it, and a note for the log (empty for plain UTF-8).

    Raises:
        DataError: Some bytes fit no encoding; the message names their lines.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    if wanted is not None:
        return _check_wanted(path, wanted, marked), ""
    if marked == "utf-8-sig" and _broken_line(path, marked) is None:
        return marked, ""
    if marked in {"utf-16", "utf-32"}:
        _check_decodes(path, marked, marked.upper(), "파일이 잘렸거나 섞였습니다. UTF-8로 다시 저장하세요.")
        return marked, _note(marked)
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        if _looks_like(start, name) and _broken_line(path, name) is None:
            return name, _note(name)
    if _broken_line(path, "utf-8") is None:
        return "utf-8", ""
    if _broken_line(path, "cp949") is None:
        return "cp949", _note("cp949")
    rare = _rare_encoding(start)
    if rare is not None and _broken_line(path, rare) is None:
        return rare, _note(rare)
    # Other bytes become lone surrogates, so that the text can be split at any line ending.
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        where = f"{path}, {_shown_lines(lines)}"
    raise DataError(
        _NO_TEXT,
        where=where,
        remedy="그 줄을 고치거나, 파일 전체의 인코딩을 알면 data.encoding에 쓰세요(예: cp949, utf-8).",
    )


def decode(content: bytes, where: str) -> str:
    """Decode bytes that are UTF-8 or CP949 and do not come from a file.

    Args:
        content: The bytes.
        where: Their source, as messages name it.

    Returns:
        The text, without a byte order mark.

    Raises:
        DataError: They are neither; the message names the lines.
    """
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    for name in (marked, "cp949"):
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")
    raise DataError(_NO_TEXT, where=f"{where}, {_shown_lines(lines)}", remedy="UTF-8이나 CP949인 텍스트를 넣으세요.")


def _note(name: str) -> str:
    return f"인코딩 {with_particle(name.upper().replace('_', '-'), '으로/로')} 읽었습니다."


def _check_wanted(path: Path, wanted: str, marked: str | None) -> str:
    """Return the codec of that name; if the file begins with its byte order mark, the one that drops the mark."""
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
    if marked is not None and name.startswith(marked.removesuffix("-sig")):
        name = marked
    wider = "한글 윈도에서 저장한 파일이면 cp949로 읽어 보세요. " if name == "euc_kr" else ""
    _check_decodes(path, name, wanted, f"{wider}data.encoding을 null로 두면 내용을 읽어 판별합니다.")
    return name


def _check_decodes(path: Path, encoding: str, shown: str, remedy: str) -> None:
    line = _broken_line(path, encoding)
    if line is not None:
        raise DataError(
            f"{shown} 인코딩으로 읽을 수 없는 바이트가 있습니다.", where=f"{path}, {line:,}번째 줄", remedy=remedy
        )


def _broken_line(path: Path, encoding: str) -> int | None:
    """Find the line of the first bytes that this encoding cannot decode; None if there are none."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(errors="strict"), translate=True)
    line = 1
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                line += decoder.decode(chunk).count("\n")
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(error.encoding, errors="replace")
        return line + sum(1 for text in io.StringIO(before, newline=None) if text.endswith("\n"))
    except UnicodeError:
        return line
    return None


def _looks_like(start: bytes, encoding: str) -> bool:
    """Return whether NULs are where ASCII has them in UTF-16 or UTF-32; UTF-8 and CP949 texts have none."""
    if len(start) < 4 or "\0" in start.decode(encoding, errors="replace"):
        return False
    if encoding.startswith("utf-32"):
        return True
    zeros = start[1::2] if encoding == "utf-16-le" else start[0::2]
    return zeros.count(0) > len(zeros) // 5


def _rare_encoding(start: bytes) -> str | None:
    """Ask charset-normalizer, and believe it where it finds UTF-16, UTF-32 or a Korean codec."""
    import charset_normalizer

    best = charset_normalizer.from_bytes(start).best()
    if best is None or not (best.encoding in _KOREAN or best.encoding.startswith(("utf_16", "utf_32"))):
        return None
    return best.encoding


def _shown_lines(lines: Iterable[str]) -> str:
    """Name the first lines that are neither UTF-8 nor CP949; if every line is one of them, the lines of the rarer."""
    broken: list[int] = []
    found: dict[str, list[int]] = {"UTF-8": [], "CP949": []}
    counts = dict.fromkeys(found, 0)
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        name = _encoding_of(line.encode("utf-8", "surrogateescape"))
        if name is None:
            broken.append(number)
            if len(broken) > _SHOWN:
                break
            continue
        counts[name] += 1
        if len(found[name]) <= _SHOWN:
            found[name].append(number)
    rarer = min(counts, key=lambda name: counts[name])
    shown = broken or found[rarer]
    more = " 등" if len(shown) > _SHOWN else ""
    mixed = "" if broken else f" ({with_particle(rarer, '이/가')} 섞임)"
    return f"{', '.join(map(str, shown[:_SHOWN]))}번째 줄{more}{mixed}"


def _encoding_of(line: bytes) -> str | None:
    for name in ("UTF-8", "CP949"):
        try:
            line.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return None
