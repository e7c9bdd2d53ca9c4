"""A run as it is now, from the files that it writes and the end of what it printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.reporting.metrics_file import records_in
from finetuning.reporting.page.curves import charts_of
from finetuning.reporting.samples import read_samples
from finetuning.web.curves import drawn
from finetuning.web.language import Say
from finetuning.web.printed import error_in
from finetuning.web.shown import command, problem, said, shown, table
from finetuning.web.work import Job

_STEPS = re.compile(r"epoch (\d+) 스텝 ([\d,]+)/([\d,]+): (.*)")
_GIB = 2**30
_LINES = 40


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: Steps taken.
        total: Steps of the whole run; 0 where it is not known yet.
        epoch: The current epoch, from 1.
    """

    step: int = 0
    total: int = 0
    epoch: int = 0


def progress_of(log: str) -> Progress:
    """Return how far a run is by the last line that says so."""
    found = _STEPS.findall(log)
    if not found:
        return Progress()
    epoch, step, total = (int(number.replace(",", "")) for number in found[-1][:3])
    return Progress(step, total, epoch)


def job_html(job: Job, say: Say) -> str:
    """Return a run as it is now: its state, how far it is, what it needs, and its curves."""
    records = records_in(job.folder) if job.folder.is_dir() else []
    at = progress_of(job.log)
    parts = [said(_state_text(job, at, say))]
    if job.state in ("running", "stopping") and at.total:
        label = say("진행", "progress")
        parts.append(f"<progress aria-label='{label}' max='{at.total}' value='{at.step}'></progress>")
    if job.state == "failed":
        parts.append(_failure(job.log, say))
    parts += [said(_numbers(records, say)), "<div class='curves'>", *(drawn(one) for one in _charts(records)), "</div>"]
    parts.append(_samples(job, say))
    return "".join(parts)


def log_html(job: Job) -> str:
    """Return the last lines that a run printed, and its command."""
    tail = "\n".join(job.log.splitlines()[-_LINES:])
    return f"<pre class='command log' tabindex='0'>{shown(tail)}</pre>{command(job.command)}"


def _charts(records: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
    last: Mapping[str, Any] = next((one for one in reversed(records) if one.get("kind") == "eval"), {})
    best = next((name for name in ("accuracy", "macro_f1", "f1", "loss") if name in last), "loss")
    return charts_of(records, best)


def _state_text(job: Job, at: Progress, say: Say) -> str:
    where = f" ({at.step:,}/{at.total:,})" if at.total else ""
    return {
        "queued": say("차례를 기다립니다. 앞의 학습이 끝나면 시작합니다.", "Waiting for its turn."),
        "running": say(f"학습하고 있습니다{where}. 이 페이지를 닫아도 계속됩니다.",
                       f"Training{where}. It goes on when this page is closed.")
        if at.total else say("준비하고 있습니다. 데이터와 모델을 읽습니다.", "Getting ready: reading data and model."),
        "stopping": say("상태를 저장하고 멈추는 중입니다.", "Saving its state to stop."),
        "finished": say("학습이 끝났습니다. 결과와 써 보기에서 확인하세요.", "Done. See the results, and try it."),
        "stopped": say(f"멈췄습니다{where}. 이어서 학습할 수 있습니다.", f"Stopped{where}. It can go on."),
        "failed": say("학습이 끝까지 가지 못했습니다.", "The run did not reach its end."),
    }[job.state]  # fmt: skip


def _failure(log: str, say: Say) -> str:
    """Return the last error that a run printed; what to do where it printed none."""
    told = error_in(log)
    if told is not None:
        return problem(*told)
    what = say("갑자기 끝났습니다. 메모리가 부족했을 수 있습니다.", "It ended suddenly, maybe short of memory.")
    return problem(
        what, remedy=say("이어서 학습하거나, 더 작은 모델을 고르세요.", "Resume it, or choose a smaller model.")
    )


def _numbers(records: Sequence[Mapping[str, Any]], say: Say) -> str:
    train = next((one for one in reversed(records) if one.get("kind") == "train"), None)
    if train is None:
        return ""
    memory, speed = (train.get("memory_bytes") or 0) / _GIB, train.get("examples_per_s") or 0
    return say(f"메모리 {memory:.2f} GiB, 1초에 예제 {speed:,.1f}개",
               f"Memory {memory:.2f} GiB, {speed:,.1f} examples a second")  # fmt: skip


def _samples(job: Job, say: Say) -> str:
    """Return what the newest evaluation predicted for a few rows that are not trained on, "" before the first."""
    step, samples = read_samples(job.folder)
    if not samples:
        return ""
    heading = say(
        f"스텝 {step:,}에서 검증 데이터를 예측해 본 예", f"Predicted at step {step:,} for rows not trained on"
    )
    columns = (say("입력", "Input"), say("예측", "Predicted"), say("정답", "Right answer"))
    rows = ((one.given, one.said or say("없음", "none"), one.truth) for one in samples)
    return f"<h4>{shown(heading)}</h4>{table(columns, rows)}"
