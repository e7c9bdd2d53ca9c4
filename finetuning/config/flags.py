"""Command line flags of settings, as (flag, key, help, whether it is an on/off switch).

Made by `python -m finetuning.config.reference`, so that --help need not import the schema. Do not edit.
"""

from __future__ import annotations

SETTING_FLAGS: tuple[tuple[str, str, str, bool], ...] = (
    ("--model_name", "model.name", "Hugging Face 모델 ID, 또는 모델 폴더나 GGUF 파일의 경로", False),
    ("--task", "model.task", "태스크의 이름. docs/tasks.md의 표를 보세요", False),
    ("--output_dir", "model.output_dir", "파인튜닝한 모델을 저장할 폴더", False),
    ("--cache_dir", "model.cache_dir", "사전학습 모델을 내려받아 둘 폴더", False),
    ("--dataset", "data.dataset_name", "Hugging Face 데이터셋 ID, 데이터 파일, 또는 split별 파일이 있는 폴더", False),
    ("--text_column", "data.text_column", "텍스트 열 이름", False),
    ("--label_column", "data.label_column", "라벨 열 이름", False),
    (
        "--max_length",
        "data.max_length",
        "최대 토큰 수. 모델의 최대 길이가 더 짧으면 그 길이로 줄이고 로그에 표시합니다",
        False,
    ),
    (
        "--batch_size",
        "data.batch_size",
        "배치 크기. 스텝마다 batch_size × gradient_accumulation_steps개를 학습합니다",
        False,
    ),
    ("--dataset_config", "data.dataset_config", "설정(config)이 여럿인 Hub 데이터셋에서 고를 이름", False),
    ("--text_pair_column", "data.text_pair_column", "문장 쌍 분류에서 두 번째 텍스트 열 이름", False),
    ("--epochs", "training.epochs", "전체 데이터를 반복할 횟수", False),
    ("--learning_rate", "training.learning_rate", "학습률", False),
    ("--weight_decay", "training.weight_decay", "가중치 감쇠. bias와 norm에는 적용하지 않습니다", False),
    ("--warmup_steps", "training.warmup_steps", "학습률을 0에서부터 천천히 올릴 스텝 수", False),
    ("--seed", "training.seed", "난수 seed. 같은 seed는 같은 결과를 냅니다", False),
    (
        "--gradient_accumulation_steps",
        "memory.gradient_accumulation_steps",
        "그래디언트 누적 스텝 수. 한 스텝의 예제를 메모리에 맞게 나눕니다",
        False,
    ),
    (
        "--mixed_precision",
        "memory.mixed_precision",
        "혼합 정밀도. bfloat16, 안 되는 GPU에서는 float16, 둘 다 안 되면 float32",
        True,
    ),
    ("--log_level", "logging.level", "로그 수준: DEBUG, INFO, WARNING, ERROR", False),
)
