"""Several datasets in one run: their rows as one split, and their examples with a share of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exceptions import DataError, SettingsError
from finetuning.config.schema import DataSettings
from finetuning.data.examples import Drawn, Examples
from finetuning.data.loading import SplitLoader
from finetuning.data.rows import Part, Rows
from finetuning.data.table import selected
from finetuning.files import content_key

if TYPE_CHECKING:
    from datasets import Dataset

_SPLITS = ("train", "validation", "test")


def check_mix(data: DataSettings) -> None:
    """Check that the data of a mixture are named by `data.mix` alone.

    Args:
        data: The settings of the data.

    Raises:
        SettingsError: Another setting names data as well.
    """
    others = {f"data.{split}_file": name for split, name in data.split_files().items()}
    if data.dataset_name != DataSettings.model_fields["dataset_name"].default:
        others["data.dataset_name"] = data.dataset_name
    if others:
        raise SettingsError(
            "data.mix와 함께 쓸 수 없는 설정이 있습니다.",
            where=", ".join(f"{key}: {name}" for key, name in others.items()),
            remedy="그 데이터를 data.mix의 한 줄로 옮기거나, data.mix를 지우세요.",
        )


def mixed(data: DataSettings, loader: SplitLoader) -> dict[str, Rows]:
    """Load every dataset of `data.mix` and join them split by split.

    Args:
        data: The settings of the data.
        loader: Loads the splits of one dataset.

    Returns:
        The splits. A split has the datasets that have it.

    Raises:
        DataError: The datasets have different columns.
        SettingsError: Another setting names data as well.
    """
    check_mix(data)
    loaded = [(source, loader.of_mixed(data.of_mixed(source)).to_train()) for source in data.mix]
    splits = {}
    for split in _SPLITS:
        own = [(source, rows[split]) for source, rows in loaded if split in rows]
        last = np.cumsum([0, *(rows.table[len(rows) - 1]["row"] for _, rows in own)]).tolist()
        parts = tuple(
            Part(source.dataset_name, rows, source.weight, first)
            for (source, rows), first in zip(own, last[:-1], strict=True)
        )
        if parts:
            splits[split] = _joined(parts)
    return splits


def _joined(parts: Sequence[Part]) -> Rows:
    first = parts[0]
    for part in parts:
        if set(part.rows.table.column_names) != set(first.rows.table.column_names):
            shown = [", ".join(name for name in one.rows.table.column_names if name != "row") for one in (first, part)]
            raise DataError(
                "data.mix의 데이터에서 읽은 열이 서로 다릅니다.",
                where=f"{first.name}: {shown[0]}; {part.name}: {shown[1]}",
                remedy="같은 열이 있는 데이터끼리 섞거나, data.mix의 줄마다 열 이름을 쓰세요(예: text_column: 본문).",
            )
    return Rows(
        where=f"data.mix ({', '.join(part.name for part in parts)})",
        table=_stacked([part.rows.table for part in parts], parts),
        key=content_key(*(part.rows.key for part in parts), *(str(part.weight) for part in parts)),
        columns=first.rows.columns,
        renamed=frozenset().union(*(part.rows.renamed for part in parts)),
        parts=tuple(parts),
    )


def mixed_examples(made: Sequence[Examples], parts: Sequence[Part]) -> Examples:
    """Join the examples of several datasets.

    Args:
        made: The examples of each dataset.
        parts: The rows that they were made from, with their weights.

    Returns:
        The examples. As many are drawn in an epoch as there are in all; each dataset has its weight's share of them.
    """
    sizes, weights = [len(examples) for examples in made], [part.weight for part in parts]
    counts = [max(1, round(sum(sizes) * weight / sum(weights))) for weight in weights]
    return Examples(
        table=_stacked([examples.table for examples in made], parts),
        lengths=np.concatenate([examples.lengths for examples in made]),
        rows=_stacked([examples.rows for examples in made], parts),
        drawn=tuple(
            Drawn(part.name, size, count, part.first) for part, size, count in zip(parts, sizes, counts, strict=True)
        ),
    )


def mix_lines(drawn: Sequence[Drawn]) -> list[str]:
    """Return lines of `plan` that say how many examples of each dataset an epoch has; none without a mixture."""
    lines = [
        f"  {part.name}: 예제 {part.size:,}개에서 epoch마다 {part.count:,}개 ({part.count / part.size:.2f}번씩)"
        for part in drawn
    ]
    return ["데이터를 섞는 비율 (data.mix):", *lines] if lines else []


def _stacked(tables: Sequence[Dataset], parts: Sequence[Part]) -> Dataset:
    """Stack tables without copying more than the column `row`, which is numbered through."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import Dataset
    from datasets.table import InMemoryTable

    wholes, chosen, start = [], [np.empty(0, dtype=np.int64)], 0
    for table, part in zip(tables, parts, strict=True):
        whole: pa.Table = table.data.table.replace_schema_metadata(None)
        numbered = pc.add(whole["row"], pa.scalar(part.first, pa.int64()))
        wholes.append(whole.set_column(whole.schema.get_field_index("row"), "row", numbered))
        own = np.arange(len(whole)) if table._indices is None else table._indices.column(0).to_numpy()
        chosen.append(own.astype(np.int64) + start)
        start += len(whole)
    whole = pa.concat_tables(wholes, promote_options="permissive")
    stacked, places = Dataset(InMemoryTable(whole), fingerprint="mixed"), np.concatenate(chosen)
    return stacked if len(places) == start else selected(stacked, places)
