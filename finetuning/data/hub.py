"""Datasets of the Hugging Face Hub, loaded by `datasets`; errors name the reason."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from exceptions import DataError, ResourceError, first_line_of
from finetuning.config.messages import WITHOUT_INTERNET
from finetuning.data.formats.base import clean_name
from finetuning.data.formats.class_names import named
from finetuning.files import full_or_read_only

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_AT_A_TIME = 10_000


def notice_offline() -> None:
    """Set HF_HUB_OFFLINE if the Hub's name does not resolve, since its client would try for half a minute.

    Must run before huggingface_hub is imported. Does nothing behind a proxy, where names need not resolve.
    """
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE")):
        return
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


class HubSplit:
    """The rows of one split, read from the disk, with class ids replaced by their names."""

    def __init__(self, table: Dataset) -> None:
        import datasets

        names = {column: name for column in table.column_names if (name := clean_name(column)) != column}
        self.table = table = table.rename_columns(names)
        self.columns: tuple[str, ...] = tuple(table.column_names)
        self.key: str = table._fingerprint
        features = {column: getattr(feature, "feature", feature) for column, feature in table.features.items()}
        self.classes: Mapping[str, Sequence[str]] = {  # of a cell, or of each item of a list
            column: feature.names for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.iter(_ROWS_AT_A_TIME):
            for values in zip(*batch.values(), strict=True):
                row = dict(zip(batch, values, strict=True))
                for column, names in self.classes.items():
                    row[column] = named(row[column], names)
                yield row


def load_hub(name: str, config: str | None, cache_dir: str, revision: str | None = None) -> dict[str, HubSplit]:
    """Load a Hub dataset, downloading it if need be. No dataset script is run.

    Args:
        name: The dataset's id.
        config: The name of its configuration, None for the only one.
        cache_dir: The folder that it is kept in.
        revision: A branch, tag or commit; None for the newest.

    Returns:
        Its splits by their published names.

    Raises:
        DataError: It cannot be loaded; the message says why.
        ResourceError: The disk is full or cannot be written.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(name, config, cache_dir=cache_dir, revision=revision)
    except Exception as error:
        reason = full_or_read_only(error)
        if reason is not None:
            raise ResourceError(
                f"데이터셋을 내려받아 둘 수 없습니다: {reason}",
                where=f"data.dataset_cache_dir: {cache_dir}",
                remedy="남은 공간을 확인하거나 data.dataset_cache_dir로 다른 폴더를 고르세요.",
            ) from error
        raise _explain(error, name) from error
    return {str(split): HubSplit(table) for split, table in loaded.items()}


def _explain(error: Exception, name: str) -> DataError:
    """Find the reason: login, spelling, connection or configuration."""
    kinds, text = {cls.__name__ for cls in type(error).__mro__}, str(error)
    where = f"data.dataset_name: {name}"
    own_file = "내 파일을 쓰려면 경로를 쓰세요(예: ./data/train.csv)."
    if "gated" in text.lower():
        return DataError(
            "로그인과 사용 승인이 필요한 데이터셋입니다.",
            where=where,
            remedy="데이터셋 페이지에서 승인을 받은 뒤 `hf auth login`으로 로그인하거나 HF_TOKEN을 설정하세요.",
        )
    if "DatasetNotFoundError" in kinds:
        return DataError(
            f"Hugging Face Hub에 그런 데이터셋이 없습니다: {name}",
            where=where,
            remedy="철자(조직/이름)를 확인하세요. 비공개이면 `hf auth login`이 필요합니다. "
            f"{own_file} {WITHOUT_INTERNET}",
        )
    if "ConnectionError" in kinds or "Offline" in text:
        return DataError(
            f"Hugging Face Hub에 연결할 수 없고, 내려받아 둔 데이터도 없습니다: {name}",
            where=where,
            remedy=f"인터넷 연결을 확인하세요. {own_file} {WITHOUT_INTERNET}",
        )
    return DataError(
        f"데이터셋을 읽지 못했습니다: {first_line_of(error)}",
        where=where,
        remedy="설정(config)이 여럿인 데이터셋이면 --dataset_config로 하나를 고르세요.",
    )
