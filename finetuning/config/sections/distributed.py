"""Settings of training one model on several processes."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetuning.config.metadata import CacheRule, ResumeRule, Section, setting
from finetuning.config.value_types import PositiveInteger


class DistributedSettings(Section):
    """How the processes that a launcher started share one model."""

    resume_rule: ClassVar[ResumeRule] = "free"  # where a number is kept does not change the steps
    cache_rule: ClassVar[CacheRule] = "none"

    shard: Literal["none", "full", "hybrid"] = setting(
        "none",
        "`none`(프로세스마다 모델 전체), `full`(모든 프로세스가 가중치를 나누어 가짐), `hybrid`(노드 안에서만 나눔)",
        "`none` (each process has the whole model), `full` (all processes divide the weights), `hybrid` (those of a "
        "node do)",
        more=(
            "나누면 프로세스마다 가중치와 옵티마이저 상태의 일부만 두고, 계산할 때 주고받습니다. 손실은 같습니다. "
            "docs/many-cards.md를 보세요",
            "Each process then keeps a part of the weights and the optimizer's states, and they exchange what a step "
            "needs; the losses are the same. See docs/many-cards.en.md",
        ),
    )
    timeout_minutes: PositiveInteger = setting(
        240,
        "다른 프로세스를 기다리는 시간(분). 첫 프로세스가 데이터를 토큰화하는 시간보다 길어야 합니다",
        "minutes to wait for another process; longer than the first process needs to tokenise the data",
    )
