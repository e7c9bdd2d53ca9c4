"""Settings of the model and its adapter."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from finetuning.config.metadata import CacheRule, Section, setting
from finetuning.config.value_types import Boolean, Number, PathText, PositiveInteger, Text


def _none_is_empty(value: object) -> object:
    """Accept a section name without keys in YAML."""
    return {} if value is None else value


class AdapterSettings(Section):
    """Which part of the model is trained."""

    cache_rule: ClassVar[CacheRule] = "none"

    method: Literal["none", "lora", "dora", "pissa", "freeze"] = setting(
        "none",
        "`none`(모두 학습), `lora`, `dora`, `pissa`, `freeze`(마지막 몇 층과 head만 학습)",
        "`none` (trains everything), `lora`, `dora`, `pissa`, `freeze` (trains the last layers and the head)",
        more=(
            "`pissa`는 가중치의 가장 큰 특잇값들에서 시작하는 LoRA입니다. rank가 두 배인 LoRA로 저장하므로 "
            "원래 베이스 모델에 그대로 쓸 수 있습니다",
            "`pissa` is LoRA that begins as the largest singular values of the weights. It is saved as a LoRA of twice "
            "the rank, for the base as it is",
        ),
    )
    r: PositiveInteger = setting(
        16,
        "`lora`, `dora`, `pissa`의 rank. 클수록 더 많이 학습하고 메모리를 더 씁니다",
        "rank of `lora`, `dora` and `pissa`; a larger one learns more and takes more memory",
    )
    alpha: PositiveInteger = setting(
        32,
        "`lora`, `dora`, `pissa`의 스케일. 더해지는 값에 `alpha / r`을 곱합니다",
        "scale of `lora`, `dora` and `pissa`: the update is multiplied by `alpha / r`",
    )
    rslora: Boolean = setting(
        False,
        "rsLoRA: `alpha / r` 대신 `alpha / √r`을 곱합니다. rank가 클 때(예: 64 이상)",
        "rsLoRA: multiplies by `alpha / √r` instead of `alpha / r`; for large ranks, such as 64 and more",
    )
    dropout: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.05, "`lora`, `dora`, `pissa`의 dropout", "dropout of `lora`, `dora` and `pissa`"
    )
    target_modules: Literal["auto"] | list[Text] = setting(
        "auto",
        "어댑터를 붙일 층. `auto`는 모든 linear 층. 목록으로 고를 수 있습니다",
        "layers that get an adapter: `auto` for every linear layer of the blocks, or a list of names",
    )
    layers: PositiveInteger = setting(
        2, "`freeze`에서 학습할 마지막 층의 수", "number of last layers that `freeze` trains"
    )


class ModelSettings(Section):
    """The model, its task and its folders."""

    cache_rule: ClassVar[CacheRule] = "none"  # rows do not depend on the model; the examples' key holds the tokenizer

    name: PathText = setting(
        "bert-base-uncased",
        "Hugging Face 모델 ID, 또는 모델 폴더나 GGUF 파일의 경로",
        "Hugging Face model ID, or the path of a model folder or GGUF file",
        flag="--model_name",
        resume="measured",
        user_only=True,
    )
    task: Text = setting(
        "text-classification",
        "태스크의 이름. docs/tasks.md의 표를 보세요",
        "name of the task; see docs/tasks.en.md",
        flag="--task",
    )
    output_dir: PathText = setting(
        "./models/fine_tuned_model",
        "파인튜닝한 모델을 저장할 폴더",
        "folder for the fine-tuned model",
        flag="--output_dir",
        resume="free",
        user_only=True,
    )
    cache_dir: PathText = setting(
        "./models/pretrained",
        "사전학습 모델을 내려받아 둘 폴더",
        "folder for downloaded pretrained models",
        flag="--cache_dir",
        resume="free",
        user_only=True,
    )
    revision: Text | None = setting(
        None,
        "모델의 버전(branch, tag, commit). `null`이면 최신",
        "revision of the model (branch, tag, commit); `null` for the latest",
        resume="free",
    )
    trust_remote_code: Boolean = setting(
        False,
        "모델 저장소에 든 파이썬 코드를 실행할지. 신뢰하는 저장소에만 켜세요",
        "whether to run Python code from the model's repository; only for repositories that you trust",
        resume="free",
        user_only=True,
    )
    dtype: Literal["float32", "bfloat16"] = setting(
        "float32",
        "가중치의 형식. `bfloat16`이면 가중치와 기울기의 메모리가 절반입니다",
        "format of the weights; `bfloat16` halves the memory of weights and gradients",
        more=("업데이트는 확률적으로 반올림합니다", "Updates are rounded stochastically"),
    )
    num_labels: PositiveInteger | None = setting(
        None,
        "라벨의 수. 1이면 점수를 예측하는 회귀. `null`이면 데이터에서 찾습니다",
        "number of labels; 1 means regression, `null` takes it from the data",
        resume="measured",
    )
    extend_vocabulary: PositiveInteger | None = setting(
        None,
        "학습 데이터에서 배운 한국어 서브워드를 이 수만큼 tokenizer에 추가합니다. 언어 모델에서만",
        "number of Korean subwords to learn from the training data and add to the tokenizer; language models only",
        more=("docs/adapters.md를 보세요", "See docs/adapters.en.md"),
    )
    adapter: Annotated[AdapterSettings, BeforeValidator(_none_is_empty)] = setting(
        AdapterSettings(),
        "모델의 일부만 학습합니다. 메모리가 적게 듭니다",
        "trains only a part of the model, in less memory",
    )
    quantization: Literal["4bit", "8bit"] | None = setting(
        None,
        "`4bit`나 `8bit`면 학습하지 않는 가중치를 양자화합니다(LoRA, DoRA). bitsandbytes 필요",
        "`4bit` or `8bit` quantizes the weights that are not trained (LoRA, DoRA); needs bitsandbytes",
    )
    save_dtype: Literal["float32", "float16", "bfloat16"] | None = setting(
        None,
        "저장할 가중치의 형식: `float32`, `float16`, `bfloat16`. `null`이면 학습한 그대로",
        "format of the saved weights: `float32`, `float16`, `bfloat16`; `null` keeps the format of training",
        resume="free",
    )
