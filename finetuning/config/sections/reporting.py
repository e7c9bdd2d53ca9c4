"""Settings of reporting: the published score to reproduce, and the log."""

from __future__ import annotations

from typing import ClassVar

from finetuning.config.metadata import CacheRule, ResumeRule, Section, setting
from finetuning.config.value_types import (
    Boolean,
    LogFormat,
    LogLevel,
    NonNegativeNumber,
    Number,
    PositiveInteger,
    Text,
)


class ExpectationSettings(Section):
    """The published score of a recipe. The end of the run says whether it was reproduced."""

    resume_rule: ClassVar[ResumeRule] = "free"
    cache_rule: ClassVar[CacheRule] = "none"

    metric: Text | None = setting(
        None,
        "비교할 지표. `summary.json`에 쓰인 이름. 예: `accuracy`. `null`이면 비교하지 않습니다",
        "metric to compare, by its name in `summary.json`, such as `accuracy`; `null` compares nothing",
    )
    score: Number | None = setting(
        None,
        "공개된 점수. `0.8507`처럼 이 프로그램이 출력하는 단위로 씁니다",
        "published score in this program's unit, such as `0.8507`",
    )
    band: NonNegativeNumber = setting(
        0.01, "점수가 이만큼 낮은 것까지는 재현한 것으로 봅니다", "how far below the score still counts as reproduced"
    )
    model: Text | None = setting(
        None,
        "그 점수의 모델. 다른 모델로 학습하면 비교하지 않습니다",
        "model of the score; another model is not compared",
    )
    rows: PositiveInteger | None = setting(
        None,
        "학습과 검증 데이터를 더한 행 수. 2% 넘게 다르면 비교하지 않습니다",
        "number of training and validation rows together; not compared if it differs by more than 2%",
    )
    test_rows: PositiveInteger | None = setting(
        None,
        "테스트 데이터의 행 수. 2% 넘게 다르면 비교하지 않습니다",
        "number of test rows; not compared if it differs by more than 2%",
    )
    source: Text | None = setting(None, "출처", "source of the score")


class LoggingSettings(Section):
    """Settings of the log and the trackers."""

    resume_rule: ClassVar[ResumeRule] = "free"
    cache_rule: ClassVar[CacheRule] = "none"

    level: LogLevel = setting(
        "INFO",
        "로그 수준: `DEBUG`, `INFO`, `WARNING`, `ERROR`",
        "log level: `DEBUG`, `INFO`, `WARNING`, `ERROR`",
        flag="--log_level",
        user_only=True,
    )
    format: LogFormat = setting(
        "%(asctime)s - %(levelname)s - %(message)s",
        "로그 한 줄의 형식 (파이썬 logging)",
        "format of a log line (Python's logging)",
        user_only=True,
    )
    log_steps: PositiveInteger = setting(
        10, "이 스텝마다 손실과 속도를 로그로 남깁니다", "number of steps between log lines with loss and speed"
    )
    progress_bar: Boolean = setting(
        True, "진행 막대를 표시할지. 터미널에서만 표시합니다", "whether to show a progress bar; on a terminal only"
    )
    report: Boolean = setting(
        True,
        "데이터의 텍스트가 들어 있는 `report.html`, `errors.csv`, `samples.json`을 남길지",
        "whether `report.html`, `errors.csv` and `samples.json` are written, which hold texts of the data",
        user_only=True,
    )
    trackers: list[Text] = setting(
        [],
        "학습 기록을 함께 보낼 곳: tensorboard, wandb, mlflow, trackio, swanlab. metrics.jsonl은 항상 씁니다",
        "where records go beside metrics.jsonl: `tensorboard`, `wandb`, `mlflow`, `trackio`, `swanlab`",
        more=(
            "이어서 학습하면 같은 run에 이어서 보내고, 이미 보낸 것은 다시 보내지 않습니다. 로그인하지 않았으면 "
            "wandb와 swanlab은 `output_dir`에만 기록합니다. TensorBoard 기록은 `output_dir/tensorboard`에 있습니다",
            "A resumed run goes on in the same run of the tracker and sends nothing twice. Without a login, wandb and "
            "swanlab keep their records in `output_dir`. TensorBoard's files are in `output_dir/tensorboard`",
        ),
        user_only=True,
    )
    run_name: Text | None = setting(
        None,
        "`trackers`에서 보일 학습의 이름. `null`이면 `output_dir`의 이름",
        "name of the run in `trackers`; `null` takes that of `output_dir`",
        user_only=True,
    )
    tags: list[Text] = setting(
        [],
        "`trackers`에서 학습을 찾을 때 쓸 태그. 예: `[baseline, nsmc]`",
        "tags of the run in `trackers`, such as `[baseline, nsmc]`",
        user_only=True,
    )
    profile: Boolean = setting(
        False,
        "스텝마다 걸린 시간을 단계별로 `summary.json`에, trace를 `trace.json`에 기록합니다. 조금 느려집니다",
        "writes where the time of a step goes to `summary.json`, and a trace to `trace.json`; a little slower",
    )
