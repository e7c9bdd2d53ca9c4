"""export: a model that was saved as an adapter, merged into its base, as a model that everything loads."""

from __future__ import annotations

import argparse
import logging

from exceptions import SettingsError
from finetuning.commands.session import Session, find_saved

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Merges the adapter in float32, saves model and tokenizer to --output or else output_dir/merged."""
    find_saved(session, arguments)
    target = arguments.output or session.output_dir / "merged"
    if not session.models.is_adapter():
        raise SettingsError(
            "어댑터가 아니라 온전한 모델이어서 합칠 것이 없습니다.",
            where=session.models.name,
            remedy="이 폴더를 그대로 쓰세요.",
        )
    tokenizer = session.models.load_tokenizer()
    session.models.save(session.models.load_merged(), tokenizer, target)
    _log.info("어댑터를 바탕 모델에 합쳐 저장했습니다: %s", target)
