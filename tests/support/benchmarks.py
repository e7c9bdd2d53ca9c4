"""Small files in the shapes in which KoBEST, KMMLU and HAE-RAE are published."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_WORDS = ["서울", "부산", "바다", "산", "학교", "회사", "버스", "아침", "저녁", "사과", "배", "커피", "책", "영화"]
ROWS = 8


def write_suite_data(folder: Path) -> Path:
    """Write two configurations of KoBEST as JSONL, one of KMMLU as CSV and all of HAE-RAE as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)

    def words(least: int, most: int) -> str:
        return " ".join(random.choice(_WORDS, random.integers(least, most)))

    def copa() -> dict[str, Any]:
        question = ("원인", "결과")[random.integers(2)]
        choices = {"alternative_1": words(1, 4), "alternative_2": words(1, 7)}
        return {"premise": words(2, 6), "question": question, **choices, "label": int(random.integers(2))}

    def hellaswag() -> dict[str, Any]:
        endings = {f"ending_{number}": words(1, 6) for number in range(1, 5)}
        return {"context": words(3, 20), **endings, "label": int(random.integers(4))}

    kobest = folder / "skt" / "kobest_v1"
    for config, make in (("copa", copa), ("hellaswag", hellaswag)):
        for split in ("train", "validation", "test"):
            rows = [make() for _ in range(ROWS)]
            _write(kobest / config / f"{split}-00000-of-00001.jsonl", map(_as_json, rows))
    law = [
        {"question": words(4, 9), "answer": int(random.integers(1, 5)), **{one: words(1, 3) for one in "ABCD"}}
        for _ in range(ROWS)
    ]
    for name in ("Law-test", "Law-dev", "Criminal-Law-test"):
        _write_csv(folder / "KMMLU" / "data" / f"{name}.csv", law)
    for config in ("general_knowledge", "history", "loan_words", "rare_words", "standard_nomenclature"):
        rows = [{"query": f"{words(4, 30)} 정답: ", "answer": f"({random.choice(list('ABCDE'))})"} for _ in range(ROWS)]
        path = folder / "HAE_RAE_BENCH" / config / "test" / "0000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


def _as_json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
