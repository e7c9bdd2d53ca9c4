"""chat: a conversation with a trained model in the terminal."""

from __future__ import annotations

import argparse
import sys

from exceptions import SettingsError
from finetuning.commands.console import read_line
from finetuning.commands.session import Session, saved_model
from finetuning.commands.what_next import tell_after_use

_AGAIN, _QUIT = "/처음부터", "/끝"


def run(session: Session, arguments: argparse.Namespace) -> None:
    """Read lines and stream answers; `/처음부터` starts a new conversation, `/끝` or Ctrl+D ends.

    Args:
        session: The session.
        arguments: The command line.

    Raises:
        SettingsError: The model was not trained on conversations.
    """
    from finetuning.inference.chat import ChatSession

    check_converses(session)
    evaluator = saved_model(session, arguments)
    evaluator.model.eval()
    evaluator.tell_decoding(is_measured=False)
    if arguments.live:
        from finetuning.commands.live import answer_turns

        answer_turns(session, evaluator)
        return
    print(f"대화를 시작합니다. {_AGAIN}: 처음부터 다시, {_QUIT} 또는 Ctrl+D: 끝", file=sys.stderr)
    conversation = ChatSession(evaluator)
    while (line := _read_line()) not in (None, _QUIT):
        if line == _AGAIN:
            conversation.forget()
            print("지금까지의 대화를 지웠습니다.", file=sys.stderr)
        elif line:
            conversation.reply(line)
    tell_after_use(session, arguments, "chat")


def check_converses(session: Session) -> None:
    """Check that a session's model is one that was trained on conversations.

    Args:
        session: The session.

    Raises:
        SettingsError: It is not.
    """
    from finetuning.tasks.generation.causal import CausalScorer

    if not isinstance(session.task.scores, CausalScorer):
        raise SettingsError(
            f"{session.task.name} 모델과는 대화할 수 없습니다.",
            where="model.task",
            remedy="text-generation이나 preference로 학습한 모델의 폴더를 --output_dir나 --model_name으로 지정하세요. "
            "이 프로그램으로 학습하지 않은 대화 모델이면 --task text-generation도 붙이세요.",
        )
    if session.settings.text_generation.format == "text":
        raise SettingsError(
            "질문과 답이 아니라 텍스트만으로 학습한 모델과는 대화할 수 없습니다.",
            where="text_generation.format: text",
            remedy="텍스트를 이어 쓰게 하려면 predict를 쓰세요. 대화는 질문과 답으로 학습한 뒤에 할 수 있습니다.",
        )


def _read_line() -> str | None:
    if sys.stdin is not None and sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = read_line()
    return line.strip() if line is not None else None
