"""Settings of training: optimizer, schedule, evaluation, checkpoints, memory."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetuning.config.metadata import CacheRule, ResumeRule, Section, setting
from finetuning.config.value_types import (
    Boolean,
    Integer,
    Label,
    NonNegativeInteger,
    NonNegativeNumber,
    Number,
    PositiveInteger,
    PositiveNumber,
    Text,
)


class TrainingSettings(Section):
    """The optimizer, its schedule, and when to evaluate and save."""

    cache_rule: ClassVar[CacheRule] = "none"

    preset: Literal["auto"] | None = setting(
        None,
        "`auto`면 배치, 학습률, warm-up, epoch 수를 태스크, 모델, 학습 방법, 데이터 크기에 맞게 고릅니다",
        "`auto` chooses batch, learning rate, warm-up and epochs by task, model, method and the size of the data",
        more=(
            "값과 출처는 `plan`이 보여 줍니다(`finetuning/config/preset.py`). 설정 파일과 플래그의 값은 그대로입니다",
            "`plan` prints the values and their sources (`finetuning/config/preset.py`). Values of your own file "
            "and of the command line stay as they are",
        ),
        resume="free",
    )
    epochs: PositiveInteger = setting(
        3, "전체 데이터를 반복할 횟수", "number of passes over the training data", flag="--epochs", resume="free"
    )
    learning_rate: PositiveNumber = setting(
        2e-5, "학습률", "learning rate", flag="--learning_rate", resume="from_now_on"
    )
    weight_decay: NonNegativeNumber = setting(
        0.01,
        "가중치 감쇠. bias와 norm에는 적용하지 않습니다",
        "weight decay; not applied to biases and norms",
        flag="--weight_decay",
        resume="from_now_on",
    )
    warmup_steps: NonNegativeInteger = setting(
        0,
        "학습률을 0에서부터 천천히 올릴 스텝 수",
        "number of steps in which the learning rate rises from 0",
        flag="--warmup_steps",
        resume="from_now_on",
    )
    max_grad_norm: PositiveNumber | None = setting(
        1.0,
        "그래디언트 클리핑 임계값. `null`이면 자르지 않습니다",
        "gradient clipping threshold; `null` for no clipping",
        resume="from_now_on",
    )
    optimizer: Literal["adamw", "muon", "adamw_8bit", "adafactor"] = setting(
        "adamw",
        "`adamw`, `muon`, `adamw_8bit`(bitsandbytes 필요), `adafactor`. 뒤로 갈수록 메모리가 덜 듭니다",
        "`adamw`, `muon`, `adamw_8bit` (needs bitsandbytes), `adafactor`; each takes less memory than the one before",
        more=(
            "`muon`은 층 안의 행렬만 Muon으로, 임베딩과 head, bias, norm은 AdamW로 학습합니다. 업데이트의 크기를 "
            "AdamW에 맞추므로 학습률은 AdamW의 값을 씁니다",
            "`muon` steps the matrices of the layers by Muon, and embeddings, heads, biases and norms by AdamW. Its "
            "updates are scaled to the size of AdamW's, so the learning rate is AdamW's",
        ),
    )
    cuda_cleanup_freq: NonNegativeInteger = setting(
        100,
        "이 스텝마다 사용하지 않는 메모리를 정리합니다. 0이면 끔",
        "number of steps between clean-ups of unused memory; 0 for never",
        resume="free",
    )
    warmup_ratio: Annotated[Number, Field(ge=0, le=1)] = setting(
        0.0,
        "`warmup_steps`가 0일 때, 전체 스텝에서 warm-up의 비율",
        "share of all steps used for warm-up, where `warmup_steps` is 0",
        resume="from_now_on",
    )
    lr_scheduler: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "cosine_with_min_lr",
        "polynomial", "inverse_sqrt", "warmup_stable_decay",
    ] = setting(
        "linear",
        "학습률 스케줄. `transformers.get_scheduler`의 이름",
        "learning rate schedule, by the names of `transformers.get_scheduler`",
        more=(
            "`linear`, `cosine`, `constant`, `constant_with_warmup`, `cosine_with_restarts`, `cosine_with_min_lr`, "
            "`polynomial`, `inverse_sqrt`, `warmup_stable_decay`. `constant`에도 warm-up을 적용합니다",
            "`linear`, `cosine`, `constant`, `constant_with_warmup`, `cosine_with_restarts`, `cosine_with_min_lr`, "
            "`polynomial`, `inverse_sqrt`, `warmup_stable_decay`. `constant` warms up, too",
        ),
        resume="from_now_on",
    )  # fmt: skip
    lr_scheduler_options: dict[Text, Number | Text] = setting(
        {},
        "스케줄의 인자. 예: `{min_lr_rate: 0.1}`",
        "arguments of the schedule, such as `{min_lr_rate: 0.1}`",
        more=(
            "없으면 `cosine_with_min_lr`은 최고 학습률의 10%까지, `warmup_stable_decay`는 마지막 10%에서 내려갑니다",
            "Without them `cosine_with_min_lr` falls to 10% of the highest rate, and `warmup_stable_decay` in the last "
            "10% of the steps",
        ),
        resume="from_now_on",
    )
    class_weights: Literal["balanced"] | dict[Label, PositiveNumber] | None = setting(
        None,
        "라벨별 손실의 가중치. `balanced`면 라벨 수에 반비례. 예: `{긍정: 1, 부정: 3}`",
        "weights of the loss by label: `balanced` for the inverse of their counts, or `{positive: 1, negative: 3}`",
        more=(
            "`text-classification`과 `token-classification`에서만. 한 스텝의 손실은 가중치의 합으로 나눕니다. "
            "목록에 없는 라벨은 1입니다",
            "`text-classification` and `token-classification` only. The loss of a step is divided by the sum of the "
            "weights. A label that is not named has 1",
        ),
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.0,
        "label smoothing. 정답 확률 가운데 이만큼을 모든 라벨에 고르게 나눕니다. 예: 0.1",
        "label smoothing: this share of the target is spread over all labels, such as 0.1",
        more=(
            "회귀, 다중 라벨, 질의응답에는 쓸 수 없습니다",
            "Not for regression, several labels and question answering",
        ),
    )
    layerwise_lr_decay: Annotated[Number, Field(gt=0, le=1)] = setting(
        1.0,
        "층마다 학습률을 이만큼 곱해 낮춥니다. head가 1배이고 아래층일수록 낮습니다. 예: 0.95",
        "factor of the learning rate from a layer to the one below; 1 at the head. Such as 0.95",
        resume="from_now_on",
    )
    lora_plus_ratio: Annotated[Number, Field(ge=1)] = setting(
        1.0,
        "LoRA+: 어댑터의 행렬 B를 이만큼 곱한 학습률로 학습합니다. 예: 16. 1이면 끔",
        "LoRA+: factor of the learning rate of an adapter's matrices B, such as 16; 1 for none",
        more=(
            "저자의 코드와 같이 head의 bias와 DoRA의 크기에도 적용합니다. `learning_rate`는 LoRA보다 조금 낮추세요",
            "As in the authors' code it holds for biases of heads and DoRA's magnitudes, too. Set `learning_rate` a "
            "little lower than for LoRA",
        ),
        resume="from_now_on",
    )
    neftune_alpha: NonNegativeNumber = setting(
        0.0,
        "NEFTune: 학습할 때 임베딩에 더하는 노이즈의 크기. 예: 5. 0이면 끔. `text-generation`에서만",
        "NEFTune: size of the noise added to embeddings in training, such as 5; 0 for none. `text-generation` only",
    )
    adam_beta1: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.9, "AdamW의 beta1", "beta1 of AdamW", resume="from_now_on"
    )
    adam_beta2: Annotated[Number, Field(ge=0, lt=1)] = setting(
        0.999, "AdamW의 beta2", "beta2 of AdamW", resume="from_now_on"
    )
    adam_epsilon: PositiveNumber = setting(1e-8, "AdamW의 epsilon", "epsilon of AdamW", resume="from_now_on")
    torch_compile: Boolean | None = setting(
        None,
        "층을 컴파일합니다. `null`이면 빨라지는 것을 확인한 모델을 오래 학습할 때만",
        "compiles the layers once, at the start; `null` only for long runs of models measured to gain from it",
        more=(
            "`torch.compile`에는 CPU라면 `g++`, GPU라면 Triton이 필요합니다. `null`이면 CPU에서 언어 모델 전체를 "
            "bf16으로 오래 학습할 때만 켭니다. 켜졌는지, 컴파일한 코드를 몇 번 쓰지 못했는지는 로그와 `summary.json`에 "
            "나옵니다. 켜면 CUDA graph(`cuda_graphs`)를 쓰지 않으며, 짧은 텍스트에서는 CUDA graph가 더 빠릅니다",
            "`torch.compile` needs `g++` on a CPU and Triton on a GPU. `null` turns it on for long bf16 training of a "
            "whole language model on a CPU. The log and `summary.json` say whether it is on and how often the compiled "
            "code could not be used. Compiled layers use no CUDA graphs (`cuda_graphs`), which are faster on short "
            "texts",
        ),
        resume="from_now_on",
    )
    cuda_graphs: Boolean = setting(
        True,
        "GPU에서 인코더를 학습할 때 크기가 같은 배치의 계산을 CUDA graph로 기록해 되풀이합니다",
        "records the passes of batches whose shapes come back as CUDA graphs and repeats them, for encoders on a GPU",
        more=(
            "짧은 텍스트의 분류처럼 한 스텝이 micro-batch 하나일 때입니다. 결과는 같습니다. GPU를 기다리는 연산이 있는 "
            "모델은 기록하지 않고 로그로 알립니다",
            "This is for steps of one micro-batch, as in classification of short texts. The results are the same. "
            "A model with an operation that waits for the GPU is not recorded, and the log says so",
        ),
        resume="from_now_on",
    )
    deterministic: Boolean = setting(
        False,
        "GPU에서도 같은 seed로 비트 단위까지 동일한 결과를 얻습니다. 조금 느려집니다",
        "makes the same seed give the same bits on a GPU, too, at some cost of speed",
        more=(
            "CPU에서는 켜지 않아도 같습니다. GPU에서는 backward의 덧셈 순서가 실행마다 달라 마지막 자리가 "
            "다를 수 있습니다. 순서를 고정할 수 없는 연산이 모델에 있으면 학습하지 않고 알립니다",
            "A CPU gives the same bits without it. On a GPU the order of sums in the backward pass varies, and so do "
            "the last digits. A model with an operation whose order cannot be fixed is refused by name",
        ),
        resume="from_now_on",
    )
    eval_steps: PositiveInteger | None = setting(
        None,
        "epoch이 끝날 때 외에 이 스텝마다 검증합니다",
        "number of steps between evaluations, besides the one at the end of each epoch",
        resume="free",
    )
    early_stopping_patience: PositiveInteger | None = setting(
        None,
        "검증이 이 횟수만큼 연속으로 나아지지 않으면 학습을 마칩니다. `null`이면 끝까지",
        "ends training after this many evaluations in a row without improvement; `null` for never",
        resume="free",
    )
    save_steps: PositiveInteger | None = setting(
        None,
        "체크포인트를 저장할 스텝 간격. `null`이면 epoch마다",
        "number of steps between checkpoints; `null` for one per epoch",
        resume="free",
    )
    save_total_limit: PositiveInteger = setting(
        2, "보관할 체크포인트의 개수", "number of checkpoints to keep", resume="free"
    )
    seed: Annotated[Integer, Field(ge=0, lt=2**32)] = setting(
        42,
        "난수 seed. 같은 seed는 같은 결과를 냅니다",
        "random seed; the same seed gives the same result",
        flag="--seed",
    )


class MemorySettings(Section):
    """How little memory to use for the same training."""

    resume_rule: ClassVar[ResumeRule] = "free"  # how a window is cut does not change its gradient
    cache_rule: ClassVar[CacheRule] = "none"

    gradient_accumulation_steps: PositiveInteger = setting(
        4,
        "그래디언트 누적 스텝 수. 한 스텝의 예제를 메모리에 맞게 나눕니다",
        "gradient accumulation steps; divides the examples of a step to fit into memory",
        flag="--gradient_accumulation_steps",
        resume="measured",
    )
    max_gpu_memory_usage: Annotated[Number, Field(gt=0, le=1)] = setting(
        0.95,
        "비어 있는 GPU 메모리 가운데 이 프로그램이 쓸 최대 비율",
        "largest share of the free GPU memory that this program may use",
    )
    empty_cache_freq: NonNegativeInteger = setting(
        50, "이 스텝마다 CUDA 캐시를 비웁니다. 0이면 끔", "number of steps between emptying the CUDA cache; 0 for never"
    )
    mixed_precision: Boolean = setting(
        True,
        "혼합 정밀도. bfloat16, 안 되는 GPU에서는 float16, 둘 다 안 되면 float32",
        "mixed precision: bfloat16, or float16 on GPUs without it, or float32 where neither works",
        more=(
            "켜면 CUDA에서 float32로 남는 행렬 곱은 TF32로 계산합니다",
            "With it, the float32 matrix products that remain on CUDA use TF32",
        ),
        flag="--mixed_precision",
        resume="from_now_on",
    )
    optimize_memory_usage: Boolean = setting(
        True,
        "메모리 단편화를 줄이고, 메모리가 부족하면 덜 쓰는 설정을 자동으로 고릅니다",
        "reduces fragmentation and, where memory is estimated to be short, chooses settings that need less",
    )
    gradient_checkpointing: Boolean | None = setting(
        None,
        "중간 결과를 저장하지 않고 다시 계산합니다. `null`이면 메모리가 부족할 때 켭니다",
        "computes activations again in the backward pass instead of keeping them; `null` where memory is short",
    )
    optimizer_in_backward: Boolean = setting(
        False,
        "기울기를 계산하는 즉시 적용하고 버립니다. 한 스텝이 메모리에 한 번에 들어갈 때만",
        "applies and frees each gradient as soon as it is computed; only where a step fits into memory at once",
    )
