"""The settings of a run: one typed, frozen model for each section of config.yaml."""

from __future__ import annotations

import logging
import math
import re
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: object) -> object:
    """A text that is a number, as YAML 1.1 leaves `2e-5` and as every flag comes; a bool is no number."""
    if isinstance(value, bool):
        raise ValueError("숫자를 써야 합니다")
    if isinstance(value, str):
        try:
            return float(value) if any(letter in value.casefold() for letter in ".enf") else int(value)
        except ValueError:
            raise ValueError("숫자를 써야 합니다") from None
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("유한한 숫자를 써야 합니다")
    return value


def _truth(value: object) -> object:
    """true or false, also as a flag spells it."""
    if isinstance(value, str) and value.casefold() in {"true", "false"}:
        return value.casefold() == "true"
    return value


def _log_format(value: str) -> str:
    try:
        logging.Formatter(value).format(logging.makeLogRecord({"msg": "", "levelname": "INFO"}))
    except (ValueError, KeyError, TypeError):
        raise ValueError("logging 모듈의 형식이 아닙니다. 예: %(asctime)s - %(levelname)s - %(message)s") from None
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _record_path(value: str) -> str:
    if not re.fullmatch(r"(?:[^.\[\]]+|\[\*\])(?:\[\*\]|\.[^.\[\]]+)*", value):
        raise ValueError("키는 점으로 잇고 목록에는 [*]를 붙입니다. 예: data[*].paragraphs[*]")
    return value


Text = Annotated[str, Field(min_length=1, strict=True)]
Whole = Annotated[int, BeforeValidator(_number), Field(strict=True)]
Real = Annotated[float, BeforeValidator(_number), AfterValidator(_finite)]
Truth = Annotated[bool, BeforeValidator(_truth), Field(strict=True)]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
RecordPath = Annotated[Text, AfterValidator(_record_path)]
LogFormat = Annotated[Text, AfterValidator(_log_format)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _nothing_is_empty(value: object) -> object:
    """A section whose name stands alone in YAML, without keys."""
    return {} if value is None else value


class AdapterSettings(_Section):
    """Which part of the model is trained."""

    method: Literal["none", "lora", "dora", "freeze"] = "none"
    r: Annotated[Whole, Field(ge=1)] = 16
    alpha: Annotated[Whole, Field(ge=1)] = 32
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.05
    target_modules: Literal["auto"] | list[Text] = "auto"
    layers: Annotated[Whole, Field(ge=1)] = 2


class ModelSettings(_Section):
    """Which model, for which task, and where it is kept."""

    name: Text = "bert-base-uncased"
    task: Text = "text-classification"
    output_dir: Text = "./models/fine_tuned_model"
    cache_dir: Text = "./models/pretrained"
    revision: Text | None = None
    trust_remote_code: Truth = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["4bit", "8bit"] | None = None
    save_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    num_labels: Annotated[Whole, Field(ge=1)] | None = None
    extend_vocabulary: Annotated[Whole, Field(ge=1)] | None = None
    adapter: Annotated[AdapterSettings, BeforeValidator(_nothing_is_empty)] = AdapterSettings()


class DataSettings(_Section):
    """Which data, which columns, and how many of its tokens and rows."""

    dataset_name: Text = "imdb"
    dataset_config: Text | None = None
    dataset_cache_dir: Text = "./datasets"
    text_column: Text = "text"
    text_pair_column: Text | None = None
    label_column: Text = "label"
    prompt_column: Text = "prompt"
    response_column: Text = "response"
    question_column: Text = "question"
    context_column: Text = "context"
    answers_column: Text = "answers"
    max_length: Annotated[Whole, Field(ge=8)] = 1024
    batch_size: Annotated[Whole, Field(ge=1)] = 16
    multi_label: Truth = False
    label_separator: Text = ","
    validation_split: Annotated[Real, Field(gt=0, lt=0.5)] = 0.1
    test_split: Annotated[Real, Field(ge=0, lt=0.5)] = 0.0
    max_bad_rows: Annotated[Real, Field(ge=0, le=1)] = 0.01
    encoding: Text | None = None
    records: RecordPath | None = None
    normalize: list[Literal["zero_width", "full_width"]] = ["zero_width"]
    train_rows: Annotated[Whole, Field(ge=1)] | None = None
    validation_rows: Annotated[Whole, Field(ge=1)] | None = None
    test_rows: Annotated[Whole, Field(ge=1)] | None = None
    packing: Truth | None = None


class TrainingSettings(_Section):
    """The optimizer, its schedule, and when to evaluate and save."""

    epochs: Annotated[Whole, Field(ge=1)] = 3
    learning_rate: Annotated[Real, Field(gt=0)] = 2e-5
    weight_decay: Annotated[Real, Field(ge=0)] = 0.01
    warmup_steps: Annotated[Whole, Field(ge=0)] = 0
    warmup_ratio: Annotated[Real, Field(ge=0, le=1)] = 0.0
    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: Annotated[Real, Field(gt=0)] | None = 1.0
    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    adam_beta1: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: Annotated[Real, Field(gt=0)] = 1e-8
    torch_compile: Truth | None = None
    eval_steps: Annotated[Whole, Field(ge=1)] | None = None
    early_stopping_patience: Annotated[Whole, Field(ge=1)] | None = None
    save_steps: Annotated[Whole, Field(ge=1)] | None = None
    save_total_limit: Annotated[Whole, Field(ge=1)] = 2
    cuda_cleanup_freq: Annotated[Whole, Field(ge=0)] = 100
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 42


class MemorySettings(_Section):
    """How little memory to use for the same training."""

    gradient_accumulation_steps: Annotated[Whole, Field(ge=1)] = 4
    max_gpu_memory_usage: Annotated[Real, Field(gt=0, le=1)] = 0.95
    empty_cache_freq: Annotated[Whole, Field(ge=0)] = 50
    mixed_precision: Truth = True
    optimize_memory_usage: Truth = True
    gradient_checkpointing: Truth | None = None
    optimizer_in_backward: Truth = False


class FillMaskSettings(_Section):
    """How the fill-mask task masks."""

    mask_probability: Annotated[Real, Field(gt=0, lt=1)] = 0.15
    whole_word: Truth = True


class QuestionAnsweringSettings(_Section):
    """How the question-answering task cuts long contexts, and how long an answer may be."""

    doc_stride: Annotated[Whole, Field(ge=1)] = 128
    max_answer_length: Annotated[Whole, Field(ge=1)] = 50


class TextGenerationSettings(_Section):
    """What a language model is trained on."""

    format: Literal["text", "chat"] | None = None
    train_on: Literal["answer", "all"] = "answer"
    system_prompt: Text | None = None
    chat_template: Text | None = None


class Text2TextSettings(_Section):
    """What a text-to-text model is trained on."""

    max_target_length: Annotated[Whole, Field(ge=2)] = 128


class GenerationSettings(_Section):
    """How a generating task makes its texts."""

    max_new_tokens: Annotated[Whole, Field(ge=1)] = 128
    num_beams: Annotated[Whole, Field(ge=1)] = 1
    temperature: Annotated[Real, Field(ge=0)] = 0.0
    top_p: Annotated[Real, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[Real, Field(gt=0)] = 1.0
    validation_rows: Annotated[Whole, Field(ge=0)] | None = None


class ExpectationSettings(_Section):
    """The published score that a recipe is to come to; the run's end says whether it did."""

    metric: Text | None = None
    score: Real | None = None
    band: Annotated[Real, Field(ge=0)] = 0.01
    model: Text | None = None
    rows: Annotated[Whole, Field(ge=1)] | None = None
    test_rows: Annotated[Whole, Field(ge=1)] | None = None
    source: Text | None = None


class LoggingSettings(_Section):
    """What a run says, and how often."""

    level: Level = "INFO"
    format: LogFormat = "%(asctime)s - %(levelname)s - %(message)s"
    log_steps: Annotated[Whole, Field(ge=1)] = 10
    progress_bar: Truth = True
    profile: Truth = False


class Settings(_Section):
    """Everything a run is told, checked and frozen."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    memory: MemorySettings = MemorySettings()
    fill_mask: FillMaskSettings = FillMaskSettings()
    question_answering: QuestionAnsweringSettings = QuestionAnsweringSettings()
    text_generation: TextGenerationSettings = TextGenerationSettings()
    text2text: Text2TextSettings = Text2TextSettings()
    generation: GenerationSettings = GenerationSettings()
    expectation: ExpectationSettings = ExpectationSettings()
    logging: LoggingSettings = LoggingSettings()

    def to_yaml(self) -> str:
        """The complete settings as YAML that reads back as the same settings."""
        return yaml.safe_dump(self.model_dump(), allow_unicode=True, sort_keys=False)
