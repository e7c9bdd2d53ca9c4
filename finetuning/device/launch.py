"""What torchrun and accelerate left in the environment: the process's place in its group, and their own settings."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from exceptions import ResourceError, SettingsError, first_line_of
from finetuning.device.peers import BY_ACCELERATE
from finetuning.korean.particles import with_particle

if TYPE_CHECKING:
    from torch.distributed import Store

_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_OTHER_LAUNCHERS = ("PMI_", "OMPI_", "MV2_")  # MPI's, from which accelerate takes the place
_DIVIDES = "가중치를 나누려면 이 프로그램의 --set distributed.shard=full을 쓰세요."
_ENGINES = {  # variable → the engine that it asks accelerate for, and what to use instead
    "ACCELERATE_USE_FSDP": ("accelerate의 FSDP 설정", _DIVIDES),
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", f"ZeRO처럼 {_DIVIDES}"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", _DIVIDES),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (
        "accelerate의 병렬화 설정(tensor, context parallelism)",
        f"예제 하나를 여러 카드에 나누어 계산하지는 않습니다. {_DIVIDES}",
    ),
}
_IGNORED = {  # variable → what it sets, and this program's setting of that
    "ACCELERATE_MIXED_PRECISION": ("혼합 정밀도", "memory.mixed_precision"),
    BY_ACCELERATE: ("컴파일", "training.torch_compile"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("그래디언트 누적", "memory.gradient_accumulation_steps"),
}
_OFF = ("", "no", "false", "0", "1")  # one step of accumulation is none
_LONG_WAIT_S = 20.0
_LOOKED_S = 0.02


def check_launch(environment: Mapping[str, str]) -> None:
    """Check that a process which belongs to a group knows its whole place in it, and that no other engine is asked for.

    Args:
        environment: The environment variables.

    Raises:
        SettingsError: Variables of an earlier launch are left over, or accelerate is set to another engine.
    """
    for name, (engine, instead) in _ENGINES.items():
        if environment.get(name, "").casefold() in ("true", "1", "yes"):
            raise SettingsError(
                f"{with_particle(engine, '은/는')} 쓰지 않습니다.",
                where=f"환경 변수 {name}",
                remedy=f"accelerate config에서 끄거나 torchrun으로 실행하세요. {instead}",
            )
    if any(name.startswith(_OTHER_LAUNCHERS) for name in environment):
        return
    place = {name: environment[name] for name in _PLACE if name in environment}
    if all(value.isdecimal() for value in place.values()):
        size, rank = int(place.get("WORLD_SIZE", 1)), int(place.get("RANK", 0))
        is_alone = size == 1 and "LOCAL_RANK" not in place
        is_whole = len(place) == len(_PLACE) and all(environment.get(name) for name in _MEETING) and rank < size
        if is_alone or is_whole:
            return
    names = [name for name in (*_PLACE, *_MEETING) if name in environment]
    raise SettingsError(
        "여러 프로세스로 실행할 때의 환경 변수가 일부만 있거나 맞지 않습니다: "
        + ", ".join(f"{name}={environment[name]}" for name in names),
        where="환경 변수",
        remedy=f"앞서 실행한 torchrun의 것이 남았으면 지우세요: unset {' '.join(names)}. 여러 프로세스로 학습하려면 "
        "torchrun이나 accelerate launch로 실행하세요.",
    )


def unused_settings(environment: Mapping[str, str], precision: str) -> list[str]:
    """Name the settings of `accelerate config` that this program does not read.

    Args:
        environment: The environment variables.
        precision: Autocast's precision, `bf16`, `fp16` or `no`.

    Returns:
        A Korean sentence for each that asks for something else than this run does.
    """
    notes = []
    for name, (what, setting) in _IGNORED.items():
        value = environment.get(name, "").casefold()
        if value not in (*_OFF, precision):
            instead = f"{with_particle(setting, '을/를')} 쓰세요."
            notes.append(f"accelerate의 {what} 설정({name}={value})은 쓰지 않습니다. {instead}")
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").casefold() == "true"
    if on_cpu and BY_ACCELERATE in environment and "WORLD_SIZE" not in environment:
        notes.append(
            "accelerate launch는 CPU에서 --num_processes와 관계없이 프로세스를 하나만 시작합니다. 여럿으로 실행하려면 "
            "torchrun --nproc_per_node 2처럼 실행하세요."
        )
    return notes


@contextmanager
def told_if_waiting() -> Iterator[None]:
    """Say whom the block waits for, where it joins a group and that takes long: the others may not be there."""
    size, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    note = (
        f"프로세스 {size}개 가운데 {rank}번이 나머지를 {place}에서 기다리고 있습니다. 프로세스 하나로 실행하려던 "
        "것이면 Ctrl+C로 멈추고 unset RANK LOCAL_RANK WORLD_SIZE를 실행하세요."
    )
    timer = threading.Timer(_LONG_WAIT_S, print, (note,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    if size != "1":
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def explaining_no_meeting() -> Iterator[None]:
    """Raise ResourceError in place of torch's error where the processes of a group do not find each other."""
    from torch.distributed import DistNetworkError, DistStoreError

    try:
        yield
    except (DistNetworkError, DistStoreError) as error:
        place = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", *_MEETING)}
        raise ResourceError(
            f"다른 프로세스와 연결하지 못해 시작하지 않았습니다: {first_line_of(error)}",
            where=f"프로세스 {place['WORLD_SIZE']}개 가운데 {place['RANK']}번, "
            f"만나는 곳 {place['MASTER_ADDR']}:{place['MASTER_PORT']}",
            remedy="먼저 끝난 프로세스의 메시지를 확인하고, 모든 노드에서 이 주소와 포트에 연결되는지 확인한 뒤 다시 "
            "실행하세요. 다른 프로그램이 이 포트를 쓰고 있으면(address already in use) --master_port를 바꾸세요. "
            "늦게 시작하는 노드가 있으면 distributed.timeout_minutes를 늘리세요.",
        ) from error


def join_anew(backend: str, wait: timedelta) -> bool:
    """Join a group that may be started again, under names of this start.

    torchrun (2.13) keeps one store for all starts, and a process would find the addresses of those that have ended.

    Args:
        backend: torch's name of the way in which the devices exchange tensors.
        wait: How long a process waits for the others.

    Returns:
        Whether the group was started before, as far as the store knows.
    """
    import torch.distributed as dist

    store, rank, size = next(dist.rendezvous("env://", timeout=wait))
    number = number_of_start(store, rank, size, wait)
    store = dist.PrefixStore(f"start-{number}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
    return number > 1


def number_of_start(store: Store, rank: int, size: int, wait: timedelta) -> int:
    """Return the number of this start of a group, the same in all of its processes and in no earlier start.

    torchrun's own count differs between machines: where a process failed it is one higher. So the first process counts,
    and answers what the others ask. Questions of processes that have ended are left in the store, and do no harm.

    Args:
        store: What the processes share; it may have been there at earlier starts.
        rank: The number of this process.
        size: How many there are.
        wait: How long the first process waits for the others.

    Returns:
        The number, from 1.

    Raises:
        DistStoreError: The others did not come.
    """
    from torch.distributed import DistStoreError

    if rank > 0:
        own = secrets.token_hex(8)
        store.set(f"asks/{rank}", own)
        number = int(store.get(f"number/{own}"))
        store.set(f"knows/{number}/{rank}", "")
        return number
    number, others, end = store.add("starts", 1), set(range(1, size)), time.monotonic() + wait.total_seconds()
    while others:
        for asking in [other for other in others if store.check([f"asks/{other}"])]:
            store.set(f"number/{store.get(f'asks/{asking}').decode()}", str(number))
        others = {other for other in others if not store.check([f"knows/{number}/{other}"])}
        if time.monotonic() > end:
            raise DistStoreError(f"{len(others)} of {size} processes did not come within {wait}")
        time.sleep(_LOOKED_S)
    return number
