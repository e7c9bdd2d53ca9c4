"""Language models through the command line: trained on real conversations, and answers that stop by themselves."""

from __future__ import annotations

import importlib.util
import json
import tarfile
from itertools import islice
from pathlib import Path

import pytest

from tests.support.cli import Cli, data_flags
from tests.support.paths import ROOT

MORPHEMES = {"bleu_morpheme", "rouge_l_morpheme"} if importlib.util.find_spec("kiwipiepy") else set()
OVERLAP = {"bleu_char", "rouge_l", *MORPHEMES}
HEARD = {"ended", "repetition", "hangul", "hanja", "polite", "mixed_politeness", "broken"}


def flags_for(model: Path, data: Path, output_dir: Path, *more: object) -> list[str]:
    return [
        "--task", "text-generation", "--model_name", str(model), "--dataset", str(data), "--output_dir",
        str(output_dir), "--set", f"data.dataset_cache_dir={output_dir.parent / 'cache'}", "--max_length", "128",
        "--gradient_accumulation_steps", "1", "--set", "generation.max_new_tokens=40", *map(str, more),
    ]  # fmt: skip


def test_an_overfitted_model_generates_its_answer_and_stops(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    rows = [("밥 먹었어?", "네, 먹었어요"), ("잘 자", "안녕히 주무세요")]
    text = "Q,A\n" + "".join(f'"{question}","{answer}"\n' for question, answer in rows * 10)
    data, output_dir = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    for split in ("train", "validation"):  # a split of our own would hold one of the two texts out
        (data / f"{split}.csv").write_text(text, encoding="utf-8")
    run = cli(*flags_for(tiny_causal, data, output_dir, "--learning_rate", "1e-2", "--epochs", "40",
                         "--batch_size", "10", "--set", "training.save_steps=1000", "--set", "training.eval_steps=1000",
                         "--set", "logging.progress_bar=false"))  # fmt: skip
    assert run.code == 0, run.err
    assert "생성 예시" in run.err
    answered = cli("predict", "--output_dir", output_dir, stdin="밥 먹었어?\n잘 자\n")
    assert answered.code == 0, answered.err
    assert [json.loads(line)["generated"] for line in answered.out.splitlines()] == [answer for _, answer in rows]
    talked = cli("chat", "--output_dir", output_dir, stdin="잘 자\n/처음부터\n밥 먹었어?\n/끝\n")
    assert talked.code == 0, talked.err
    assert talked.out.splitlines() == ["안녕히 주무세요", "네, 먹었어요"]


def test_real_conversations_train_evaluate_and_are_planned(
    cli: Cli, tiny_causal: Path, real_data: Path, tmp_path: Path
) -> None:
    with (real_data / "chatbot" / "ChatbotData.csv").open(encoding="utf-8") as lines:
        (tmp_path / "train.csv").write_text("".join(islice(lines, 201)), encoding="utf-8")
    output_dir = tmp_path / "model"
    flags = flags_for(tiny_causal, tmp_path / "train.csv", output_dir, "--batch_size", "16", "--epochs", "1",
                      "--learning_rate", "1e-3")  # fmt: skip
    planned = cli("plan", *flags)
    assert planned.code == 0, planned.err
    assert "⟦하루가 또 가네요.</s>⟧" in planned.out
    assert not output_dir.exists()
    run = cli(*flags)
    assert run.code == 0, run.err
    summary = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    assert {"loss", "perplexity", "loss_per_char", "perplexity_per_char", *OVERLAP, *HEARD} == set(
        summary["validation"]
    )
    records = (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert any(set(json.loads(record)) >= HEARD | OVERLAP for record in records)
    assert "종료 토큰으로 끝난 답" in run.err and "글자 ROUGE-L" in run.err
    assert ("형태소 ROUGE-L" in run.err) == bool(MORPHEMES)
    evaluated = cli("evaluate", "--output_dir", output_dir, *data_flags(output_dir), "--split", "validation")
    assert evaluated.code == 0, evaluated.err
    saved = json.loads((output_dir / "metrics-validation.json").read_text(encoding="utf-8"))
    assert saved["loss"] == pytest.approx(summary["validation"]["loss"], rel=1e-4)


def test_rows_that_are_no_conversations_are_named(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]}
    bad = {"messages": good["messages"][1:]}
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [good, good, bad])), encoding="utf-8")
    run = cli(*flags_for(tiny_causal, tmp_path / "train.jsonl", tmp_path / "model"))
    assert run.code == 3
    assert "assistant로 시작하는 messages 1행(3번째)" in run.err
    assert not (tmp_path / "model").exists()


def test_cut_off_answers_are_counted_with_a_warning(cli: Cli, tiny_causal: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "길다 " * (60 if n == 3 else 1), "completion": f"네 {n}"} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = cli("plan", *flags_for(tiny_causal, tmp_path / "train.jsonl", tmp_path / "model"))
    assert run.code == 0, run.err
    assert "1행(4번째)을 제외합니다" in run.err
    assert "50%" in run.err and "max_length" in run.err


def test_text_to_text_on_real_sentences(cli: Cli, tiny_seq2seq: Path, real_data: Path, tmp_path: Path) -> None:
    data, output_dir = tmp_path / "ko-en", tmp_path / "model"
    data.mkdir()
    with tarfile.open(real_data / "ko-en" / "korean-english-park.dev.tar.gz") as archive:
        korean, english = (
            archive.extractfile(f"korean-english-park.dev.{language}").read().decode("utf-8").splitlines()  # type: ignore[union-attr]
            for language in ("ko", "en")
        )
    rows = [f"{ko}\t{en}\n" for ko, en in zip(korean, english, strict=True) if len(ko) < 60][:200]
    (data / "train.tsv").write_text("ko\ten\n" + "".join(rows), encoding="utf-8")
    run = cli("--config", ROOT / "recipes" / "ko-en.yaml", "--model_name", tiny_seq2seq, "--dataset", data,
              "--output_dir", output_dir, "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", "--epochs", "2",
              "--learning_rate", "1e-2", "--max_length", "96", "--set", "generation.max_new_tokens=12",
              "--set", "generation.num_beams=1")  # fmt: skip
    assert run.code == 0, run.err
    assert "생성 예시" in run.err
    summary = json.loads((output_dir / "summary.json").read_text(encoding="utf-8"))
    assert {"loss", "chrf", "bleu", *OVERLAP, *HEARD} == set(summary["validation"])
    losses = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, second = (record["loss"] for record in losses if record["kind"] == "eval")
    assert second < first
    evaluated = cli("evaluate", "--output_dir", output_dir, *data_flags(output_dir), "--split", "validation")
    assert evaluated.code == 0, evaluated.err
    saved = json.loads((output_dir / "metrics-validation.json").read_text(encoding="utf-8"))
    assert saved["loss"] == pytest.approx(summary["validation"]["loss"], rel=1e-4)
    assert saved["chrf"] == pytest.approx(summary["validation"]["chrf"])
    answered = cli("predict", "--output_dir", output_dir, stdin="어제 비가 왔다.\n")
    assert answered.code == 0, answered.err
    assert isinstance(json.loads(answered.out)["generated"], str)
