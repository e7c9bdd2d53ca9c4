"""The format `merged`: an adapter merged into its base, as a whole model that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

from exceptions import SettingsError
from finetuning.exports.base import ExportFormat, FineTunedModel, Written
from finetuning.tasks.base import Task

_CAUSAL = "AutoModelForCausalLM"
_SERVED = (
    ("vLLM으로 서빙하기(GPU, pip install vllm)", ("vllm", "serve", "{folder}")),
    ("transformers로 서빙하기(pip install 'transformers[serving]')", ("transformers", "serve", "{folder}")),
)


def write_merged(model: FineTunedModel, folder: Path) -> Written:
    """Merge an adapter into its base in float32, and write model and tokenizer.

    Args:
        model: The model that was fine-tuned.
        folder: The folder to write to.

    Returns:
        How it is used.

    Raises:
        SettingsError: The model is whole already.
    """
    if not model.is_adapter():
        raise SettingsError(
            "어댑터가 아니라 전체 모델이므로 합칠 것이 없습니다.",
            where=model.name,
            remedy="이 폴더를 그대로 쓰세요. GGUF나 ONNX로 바꾸려면 --format gguf 또는 --format onnx를 쓰세요.",
        )
    tokenizer = model.load_trained_tokenizer()
    model.save(model.load_whole(tokenizer), tokenizer, folder)
    task = model.task
    return Written(usage=_usage(task), commands=_SERVED if task.auto_class == _CAUSAL else ())


def _usage(task: Task) -> str:
    lines: tuple[str, ...]
    if task.pipeline is not None and not task.usage:
        lines = ("from transformers import pipeline", "", f'model = pipeline("{task.pipeline}", model="{{folder}}")')
    else:
        lines = (
            f"from transformers import {task.auto_class}, AutoTokenizer", "",
            f'model = {task.auto_class}.from_pretrained("{{folder}}")',
            'tokenizer = AutoTokenizer.from_pretrained("{folder}")', *task.usage.rstrip().split("\n"),
        )  # fmt: skip
    return "\n".join(("```python", *lines, "```"))


MERGED = ExportFormat("merged", write_merged, "어댑터를 베이스 모델에 합쳐 저장했습니다", loads_here=True)
