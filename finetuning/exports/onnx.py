"""The formats `onnx` and `onnx-int8`: an encoder for onnxruntime, as it is or with weights of one byte."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError, first_line_of
from finetuning.exports.base import ExportFormat, FineTunedModel, Written, require
from finetuning.files import discard, disk_reason
from finetuning.tasks.base import Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_FILE, _VECTOR = "model.onnx", "sentence_embedding"
_OF_DOCUMENTS = """

긴 텍스트는 `long_documents.json`에 적힌 대로 겹치는 구간으로 나누어 구간마다 계산하고, logits의 평균을 쓰세요."""
_TEXTS = (
    "정말 재미있게 봤습니다.",
    "별로였어요",
    "배송이 하루 늦었지만 물건은 마음에 들어서 다음에도 여기서 살 생각입니다.",
)
_NO_ENCODERS = {
    "AutoModelForCausalLM": "텍스트를 생성하는 모델은 --format gguf로 내보내 llama.cpp나 Ollama에서 쓰세요.",
    "AutoModelForSeq2SeqLM": "--format merged로 내보내 transformers로 쓰거나, "
    "`optimum-cli export onnx`(pip install optimum-onnx)로 바꾸세요.",
}


def write_onnx(is_int8: bool, model: FineTunedModel, folder: Path) -> Written:
    """Write an encoder, an adapter merged into it, with its tokenizer and its labels.

    Args:
        is_int8: Whether linear layers and embeddings are quantised to 8 bits, activations while it runs.
        model: The model that was fine-tuned.
        folder: The folder to write to.

    Returns:
        How far its outputs are from torch's.

    Raises:
        SettingsError: The model generates texts, or a package is missing.
        ModelError: torch cannot export the model.
    """
    name = "onnx-int8" if is_int8 else "onnx"
    if model.task.auto_class in _NO_ENCODERS:
        raise SettingsError(
            f"{model.task.name} 태스크의 모델은 ONNX로 내보내지 않습니다. 인코더만 내보냅니다.",
            where=f"--format {name}",
            remedy=_NO_ENCODERS[model.task.auto_class],
        )
    require(name, onnx="onnx", onnxscript="onnxscript", onnxruntime="onnxruntime")
    tokenizer = model.load_trained_tokenizer()
    whole = model.load_whole(tokenizer).eval()
    model.save(whole, tokenizer, folder)
    for path in folder.glob("*.safetensors*"):  # config and tokenizer stay
        path.unlink()
    runs = model.task.exported(whole)
    outputs = _output_names(runs, tokenizer)
    _export(runs, tokenizer, outputs, folder / _FILE, name)
    if is_int8:
        _quantise(folder / _FILE)
    difference = _difference_of_vectors if outputs == [_VECTOR] else _difference
    return Written([difference(runs, tokenizer, outputs, folder / _FILE)], _usage(model.task, outputs))


def _inputs(tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    if tokenizer.pad_token is None:
        texts = texts[:1]
    padding = len(texts) > 1
    return dict(tokenizer(list(texts), padding=padding, truncation=True, max_length=64, return_tensors="pt"))


def _output_names(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the names of the model's outputs: `logits`, or those of a question's answer."""
    return [name for name, value in _run(model, _inputs(tokenizer, _TEXTS)).items() if hasattr(value, "shape")]


def _run(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    import torch

    with torch.inference_mode():
        return dict(model(**inputs))


def _export(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, outputs: list[str], path: Path, name: str
) -> None:  # fmt: skip
    import torch

    inputs = _inputs(tokenizer, _TEXTS)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    try:
        with _quiet():
            torch.onnx.export(
                model, (), str(path), kwargs=inputs, input_names=list(inputs), output_names=outputs, dynamo=True,
                dynamic_shapes={name: {0: rows, 1: tokens} for name in inputs}, external_data=False,
            )  # fmt: skip
    except Exception as error:
        if disk_reason(error) is not None:
            raise
        raise ModelError(
            f"torch가 이 모델을 ONNX로 바꾸지 못했습니다: {first_line_of(error)}",
            where=f"--format {name}, 모델: {getattr(model.config, 'model_type', '')}",
            remedy="`pip install -U onnxscript`로 새 버전을 써 보세요. 그래도 안 되면 ONNX로 바꿀 수 없는 모델이므로 "
            "transformers의 pipeline()으로 쓰세요.",
        ) from error


def _quantise(path: Path) -> None:
    """Replace a model by one with weights of 8 bits. Activations are quantised while it runs, by their own range."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name(".float32.onnx")
    path.rename(whole)
    with _quiet():
        quantize_dynamic(whole, path, weight_type=QuantType.QInt8, per_channel=True)
    discard(whole)


def _difference(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, outputs: list[str], path: Path
) -> str:  # fmt: skip
    """Run a model in onnxruntime on texts one by one, and say how far its outputs are from torch's."""
    farthest, same, count = 0.0, 0, 0
    for expected, found in _beside_torch(model, tokenizer, outputs, path):
        for ours, value in zip(expected, found, strict=True):
            farthest = max(farthest, float(abs(ours - value).max()))
            same += int((ours.argmax(-1) == value.argmax(-1)).sum())
            count += ours[..., 0].size
    return (
        f"onnxruntime에서 불러와 확인했습니다. 문장 {len(_TEXTS)}개에서 torch(float32)와 출력 차이는 최대 "
        f"{farthest:.2g}이고, 가장 큰 값의 자리가 {count:,}개 중 {same:,}개에서 같습니다."
    )


def _difference_of_vectors(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, outputs: list[str], path: Path
) -> str:  # fmt: skip
    """Embed texts one by one in onnxruntime, and say how far the vectors are from torch's."""
    import numpy as np

    farthest, least = 0.0, 1.0
    for (ours,), (value,) in _beside_torch(model, tokenizer, outputs, path):
        lengths = np.linalg.norm(ours) * np.linalg.norm(value)
        farthest = max(farthest, float(abs(ours - value).max()))
        least = min(least, float((ours * value).sum() / lengths))
    return (
        f"onnxruntime에서 불러와 확인했습니다. 문장 {len(_TEXTS)}개의 벡터를 torch(float32)와 비교하면 코사인 유사도가 "
        f"{least:.4f} 이상이고 값의 차이는 최대 {farthest:.2g}입니다. pooling까지 ONNX에 들어 있습니다."
    )


def _beside_torch(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, outputs: list[str], path: Path
) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield the outputs of torch and of onnxruntime for each text alone, as arrays."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for text in _TEXTS:
        inputs = _inputs(tokenizer, (text,))
        expected = _run(model, inputs)
        found = session.run(outputs, {name: value.numpy() for name, value in inputs.items()})
        yield [expected[name].numpy() for name in outputs], found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from telling about their own steps."""
    logger = logging.getLogger()
    level = logger.level
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _usage(task: Task, outputs: list[str]) -> str:
    made, text = f"{task.auto_class}의 출력", "텍스트"
    if outputs == [_VECTOR]:
        options = task.settings.embedding
        made, text = f"벡터(pooling 포함{', 길이 1' * options.normalize})", f"{options.query_prefix}텍스트"
    return f"""```python
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

config, tokenizer = AutoConfig.from_pretrained("{{folder}}"), AutoTokenizer.from_pretrained("{{folder}}")
session = onnxruntime.InferenceSession("{{folder}}/{_FILE}")
outputs = session.run(None, dict(tokenizer(["{text}"], padding=True, return_tensors="np")))  # {made}
```{_OF_DOCUMENTS if task.settings.text_classification.long_documents == "pool" else ""}"""


_DONE = "ONNX 파일을 저장했습니다"
ONNX = ExportFormat("onnx", partial(write_onnx, False), _DONE)
ONNX_INT8 = ExportFormat("onnx-int8", partial(write_onnx, True), _DONE)
