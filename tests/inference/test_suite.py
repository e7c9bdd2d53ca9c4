"""Public benchmarks: the same scores as lm-evaluation-harness's own `hf` model, without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from finetuning.config.schema import Settings
from finetuning.device.runtime import Runtime
from finetuning.inference.evaluator import Evaluator
from finetuning.tasks.registry import find_task
from memory_utils import MemoryManager
from tests.support.benchmarks import write_suite_data

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
NAMES = ("haerae", "kobest_copa", "kobest_hellaswag", "kmmlu_law")


def evaluator_of(folder: Path, batch_size: int) -> Evaluator:
    import transformers

    settings = Settings.model_validate(
        {
            "model": {"task": "text-generation"},
            "data": {"batch_size": batch_size, "max_length": 64},
            "logging": {"progress_bar": False},
        }
    )
    task, tokenizer = find_task(settings), transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    task.scores.fit_model(model, tokenizer)
    runtime = Runtime(Accelerator(cpu=True))
    return Evaluator(task, model, tokenizer, (), 64, runtime, MemoryManager(settings, runtime.device, 64), lambda: None)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from finetuning.inference.suite.tasks import load_suite

    folder = write_suite_data(tmp_path_factory.mktemp("suite"))
    return load_suite(NAMES, folder, str(folder / "cache"))


def outcome(model: Any, suite: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Metrics by task, and the log-probabilities of the answers to each of its questions."""
    from lm_eval.evaluator import evaluate

    found = evaluate(model, suite.loaded, log_samples=True, bootstrap_iters=0)
    metrics = {
        f"{name} {key}": value
        for name, own in found["results"].items()
        for key, value in own.items()
        if isinstance(value, float)
    }
    answers = {
        name: [answer for row in rows for answer in row["filtered_resps"]] for name, rows in found["samples"].items()
    }
    return metrics, answers


@pytest.mark.parametrize("batch_size", [1, 64])
def test_scores_are_those_of_the_hf_model_of_lm_eval(tiny_causal: Path, suite: Any, batch_size: int) -> None:
    """Contexts longer than the 256 positions of the model are among them, and answers of one token and of many."""
    from lm_eval.models.huggingface import HFLM

    from finetuning.inference.suite.language_model import SuiteModel

    evaluator = evaluator_of(tiny_causal, batch_size)
    with torch.no_grad():
        for parameter in evaluator.model.parameters():
            parameter.mul_(3)  # or all answers are about as likely
    own = SuiteModel(evaluator)
    assert own._in_one_row
    metrics, answers = outcome(own, suite)
    others = HFLM(pretrained=evaluator.model, tokenizer=evaluator.tokenizer, backend="causal", batch_size=3)
    expected_metrics, expected = outcome(others, suite)
    assert metrics == pytest.approx(expected_metrics, abs=1e-6, nan_ok=True)
    for name in expected:
        assert [value for value, _ in answers[name]] == pytest.approx([value for value, _ in expected[name]], abs=1e-4)
        assert [greedy for _, greedy in answers[name]] == [greedy for _, greedy in expected[name]]


def test_whole_texts_and_generated_ones_are_those_of_the_hf_model(tiny_causal: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from finetuning.inference.suite.language_model import SuiteModel

    evaluator = evaluator_of(tiny_causal, 4)
    models = [SuiteModel(evaluator), HFLM(pretrained=evaluator.model, tokenizer=evaluator.tokenizer, backend="causal")]
    texts = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in ("학교에 갔다.", "바다 " * 60)]
    own, expected = (model.loglikelihood_rolling(texts) for model in models)
    assert own == pytest.approx(expected, abs=1e-3)
    asked = [Instance("generate_until", {}, ("학교에", {"until": ["\n"], "max_gen_toks": 8}), 0)]
    own_texts, expected_texts = (model.generate_until(asked) for model in models)
    assert own_texts == expected_texts


def test_a_group_counts_the_rows_of_its_tasks_and_the_same_rows_have_the_same_key(suite: Any, tmp_path: Path) -> None:
    from finetuning.inference.suite.tasks import load_suite

    names = [(name, level) for name, level, _ in suite.outline()]
    assert names[0] == ("haerae", 0) and ("haerae_history", 1) in names and ("kmmlu_law", 0) in names
    assert len(names) == len(set(names)) == 1 + 5 + 3
    again = load_suite(NAMES, write_suite_data(tmp_path), str(tmp_path / "cache"))
    assert again.key() == suite.key()
    fewer = load_suite(NAMES[:2], tmp_path, str(tmp_path / "cache"))
    assert fewer.key() != suite.key()
