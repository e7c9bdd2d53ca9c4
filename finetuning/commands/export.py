"""export: write a fine-tuned model in a format that other programs load."""

from __future__ import annotations

import argparse
import logging

from finetuning.commands.session import Session, find_saved
from finetuning.exports.registry import DEFAULT

_log = logging.getLogger(__name__)


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Write the model in output_dir or --model_name to --output, or to a folder inside output_dir by default."""
    find_saved(session, arguments)
    folder = arguments.output or session.output_dir / DEFAULT.name
    DEFAULT.write(session.models, folder)
    _log.info("%s: %s", DEFAULT.done, folder)
