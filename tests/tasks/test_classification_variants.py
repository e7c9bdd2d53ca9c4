"""Regression, several labels a text, and pairs: losses, metrics, thresholds and labels against references."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_manager import DataManager
from exceptions import BadRow, DataError, SettingsError
from finetuning.config.schema import Settings
from finetuning.reporting.predictions import write_predictions
from finetuning.tasks.registry import find_task, refined_task
from tests.support.rows import TEXTS, examples_of

NAMES = ["a", "b", "c"]
TRUTH = {"label": ['["a", "b"]', '["b"]', "[]", '["c"]']}
SCORES = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)


def task_of(kind: str, **data: Any) -> Any:
    return find_task(Settings.model_validate({"model": {"task": kind}, "data": data}))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    """A DataManager of a folder of CSV files, given by split as lines below the header `text,label`."""

    def make(settings: dict[str, Any], **splits: str) -> DataManager:
        folder = tmp_path / "data"
        folder.mkdir()
        for name, lines in splits.items():
            (folder / f"{name}.csv").write_text("text,label\n" + lines, encoding="utf-8")
        data = {"dataset_name": str(folder), "dataset_cache_dir": str(tmp_path / "cache"), **settings.pop("data", {})}
        checked = Settings.model_validate({**settings, "data": data})
        return DataManager(checked, find_task(checked))

    return make


# --- losses ---


@pytest.mark.parametrize("autocast", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "names", "cells", "labels"),
    [
        ("multi-label-classification", NAMES, ['["a", "c"]', "[]", '["b"]'], [[1.0, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ("text-regression", [], ["0.5", "4", "-1.25"], [0.5, 4.0, -1.25]),
    ],
)
def test_the_loss_is_that_of_transformers(
    tokenizer: Any, tiny_model: Path, kind: str, names: list[str], cells: list[str], labels: Any, autocast: torch.dtype
) -> None:
    from transformers import AutoModelForSequenceClassification

    task = task_of(kind)
    options = task.scores.config_options(names)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, **options).eval()
    examples = examples_of(task, tokenizer, {**TEXTS, "label": cells}, names)
    batch = task.encodes.collate(examples, tokenizer, None)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast == torch.bfloat16):
        logits = task.scores.forward(model, batch)
        loss = task.scores.loss_sum(logits, batch)
        reference = model(**batch.inputs, labels=torch.tensor(labels)).loss
    assert loss.dtype == torch.float32
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if autocast == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(loss / batch.items, reference.float(), **tolerance)
    alone = [task.encodes.collate([example], tokenizer, None) for example in examples]
    parts = sum(task.scores.loss_sum(task.scores.forward(model, part), part) for part in alone)
    if autocast == torch.float32:
        torch.testing.assert_close(parts, loss)


def test_a_pair_is_one_input_of_two_segments(tokenizer: Any) -> None:
    task = task_of("text-classification", text_pair_column="second")
    rows = {"row": [1], "text": ["정말 재미있다"], "text_pair": ["너무 지루하다"], "label": ["0"]}
    expected = tokenizer("정말 재미있다", "너무 지루하다")
    assert [column.role for column in task.reads.columns(())] == ["text", "text_pair", "label"]
    example = examples_of(task, tokenizer, rows, ["0", "1"])[0]
    assert example["input_ids"] == expected["input_ids"]
    assert example["token_type_ids"] == expected["token_type_ids"]
    assert set(example["token_type_ids"]) == {0, 1}


# --- metrics ---


def test_regression_metrics_are_those_computed_by_hand() -> None:
    # deviations of truth -2 -1 0 1 2 and of scores -1 -2 1 0 2: 8 / sqrt(10 x 10); ranks differ by 1, four times
    found = task_of("text-regression").scores.metrics(
        [2.0, 1.0, 4.0, 3.0, 5.0], {"label": ["1", "2", "3", "4", "5"]}, [], 0.5
    )
    assert found == pytest.approx({"loss": 0.5, "pearson": 0.8, "spearman": 0.8, "f1_at_3": 1.0})


def test_f1_cuts_labels_and_predictions_at_three() -> None:
    truth, scores = (
        {"label": ["1", "2.9", "3.0", "4", "5"]},
        [2.0, 3.0, 4.0, 2.99, 5.0],
    )  # 2 right, 1 too many, 1 missed
    assert task_of("text-regression").scores.metrics(scores, truth, [], 0.0)["f1_at_3"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [["3.5", "4"], ["0", "2.9"], ["1", "10"], ["-1", "4"]])
def test_there_is_no_f1_at_three_if_all_labels_are_on_one_side(labels: list[str]) -> None:
    assert "f1_at_3" not in task_of("text-regression").scores.metrics([1.0, 2.0], {"label": labels}, [], 0.0)


def test_correlations_are_those_of_scipy_and_of_ranks_with_ties() -> None:
    from scipy.stats import pearsonr, rankdata, spearmanr

    random = np.random.default_rng(0)
    truth = np.round(random.uniform(0, 5, 200), 1)
    scores = np.round(truth + random.normal(0, 1.5, 200), 1)
    found = task_of("text-regression").scores.metrics(scores.tolist(), {"label": [str(x) for x in truth]}, [], 0.0)
    assert found["pearson"] == pytest.approx(pearsonr(truth, scores)[0])
    assert found["pearson"] == pytest.approx(np.corrcoef(truth, scores)[0, 1])
    assert found["spearman"] == pytest.approx(spearmanr(truth, scores)[0])
    assert found["spearman"] == pytest.approx(np.corrcoef(rankdata(truth), rankdata(scores))[0, 1])


def test_constant_predictions_have_no_correlation() -> None:
    found = task_of("text-regression").scores.metrics([2.0, 2.0, 2.0], {"label": ["1", "2", "3"]}, [], 1.0)
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_multi_label_metrics_are_those_computed_by_hand() -> None:
    # a: 1 right, 1 too many; b: 1 right, 1 missed; c: 1 right
    task = task_of("multi-label-classification")
    found = task.scores.metrics(list(SCORES), TRUTH, NAMES, 0.25)
    assert found == pytest.approx({"loss": 0.25, "micro_f1": 6 / 8, "macro_f1": 7 / 9, "threshold": 0.5})
    assert [line.split(": ")[1][:6] for line in task.shows.details(list(SCORES), TRUTH, NAMES)[1:]] == [
        "0.6667", "0.6667", "1.0000",
    ]  # fmt: skip


# --- the threshold ---


def test_the_threshold_is_the_best_of_all_on_validation() -> None:
    from sklearn.metrics import f1_score

    random = np.random.default_rng(3)
    truth = random.random((60, 3)) < 0.3
    scores = np.clip(0.3 * truth + random.normal(0.25, 0.15, truth.shape), 0, 1)
    cells = {"label": [json.dumps([NAMES[i] for i in np.flatnonzero(row)]) for row in truth]}
    chosen = task_of("multi-label-classification").scores.calibrate(list(scores), cells, NAMES)["decision_threshold"]
    by_threshold = {edge / 100: f1_score(truth, scores >= edge / 100, average="micro") for edge in range(5, 100, 5)}
    assert by_threshold[chosen] == max(by_threshold.values())
    assert chosen < 0.5


def test_among_equal_thresholds_the_one_nearest_to_a_half_is_chosen() -> None:
    scores = [np.array([0.97, 0.01, 0.01]), np.array([0.01, 0.97, 0.97])]
    cells = {"label": ['["a"]', '["b", "c"]']}
    assert task_of("multi-label-classification").scores.calibrate(scores, cells, NAMES) == {"decision_threshold": 0.5}


def test_a_threshold_in_the_config_is_used() -> None:
    from transformers import BertConfig

    task = task_of("multi-label-classification")
    task.scores.fit_model(SimpleNamespace(config=BertConfig(decision_threshold=0.15)), None)
    found = task.shows.readable(SCORES[0], {}, NAMES, None)
    assert found["label"] == ["a", "b"]
    assert found["score"] == pytest.approx([0.9, 0.2])
    assert task.scores.metrics(list(SCORES), TRUTH, NAMES, 0.0)["threshold"] == 0.15


# --- which task is meant ---


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"0.5": 2, "1": 2, "4.25": 1}, "text-regression"),
        ({"0": 2, "1": 2}, "text-classification"),
        ({"1.0": 2, "2.0": 2}, "text-classification"),
        ({"0.5": 2, "긍정": 2}, "text-classification"),
        ({"0.5": 60, "1.5": 39, "N/A": 1}, "text-regression"),
        ({"0": 2, "1": 2, "nan": 1, "inf": 1}, "text-classification"),
        ({}, "text-classification"),
    ],
)
def test_labels_with_fractions_mean_regression(labels: dict[str, int], kind: str) -> None:
    assert refined_task(task_of("text-classification"), (), labels).name == kind


def test_settings_decide_the_task_before_the_labels_do() -> None:
    fractions = {"0.5": 2, "1.5": 2}
    several = Settings.model_validate({"data": {"multi_label": True}})
    assert refined_task(find_task(several), (), fractions).name == "multi-label-classification"
    classes = Settings.model_validate({"model": {"num_labels": 2}})
    assert refined_task(find_task(classes), (), fractions).name == "text-classification"
    one = Settings.model_validate({"model": {"num_labels": 1}})
    assert refined_task(find_task(one), (), {"0": 2, "1": 2}).name == "text-regression"


def test_settings_that_contradict_each_other_or_the_data_are_refused() -> None:
    with pytest.raises(SettingsError, match="함께 할 수 없습니다"):
        find_task(Settings.model_validate({"model": {"num_labels": 1}, "data": {"multi_label": True}}))
    for kind in ("text-classification", "multi-label-classification"):
        task = find_task(Settings.model_validate({"model": {"num_labels": 3, "task": kind}}))
        with pytest.raises(DataError, match=r"2가지인데 model\.num_labels는 3"):
            task.reads.label_names({"가": 20, "나": 20})
    with pytest.raises(DataError, match="num_labels"):
        task = find_task(Settings.model_validate({"model": {"num_labels": 3, "task": "회귀"}}))
        task.reads.label_names({"1": 1, "2.5": 1})


@pytest.mark.parametrize("labels", [{}, {"공포": 9}])
def test_several_labels_need_two_kinds(labels: dict[str, int]) -> None:
    with pytest.raises(DataError, match="label_separator"):
        task_of("multi-label-classification").reads.label_names(labels)


def test_the_config_names_the_kind_of_problem() -> None:
    assert (
        task_of("text-classification").scores.config_options(["a", "b"])["problem_type"]
        == "single_label_classification"
    )
    assert (
        task_of("multi-label-classification").scores.config_options(NAMES)["problem_type"]
        == "multi_label_classification"
    )
    assert task_of("text-regression").scores.config_options([]) == {"num_labels": 1, "problem_type": "regression"}


# --- labels in files ---


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("공포,로맨스", ["공포", "로맨스"]),
        (" 로맨스 , 공포,,공포 ", ["공포", "로맨스"]),
        ('["로맨스", "공포"]', ["공포", "로맨스"]),
        (["로맨스", "공포"], ["공포", "로맨스"]),
        ('["쉼표, 하나"]', ["쉼표, 하나"]),
        ("[]", []),
        ([], []),
        ([1, 2.0, True, None], ["1", "2", "true"]),
        (3, ["3"]),
    ],
)
def test_labels_are_a_list_or_divided_by_the_separator(cell: Any, labels: list[str]) -> None:
    assert task_of("multi-label-classification").reads.prepare({"text": "글", "label": cell})["label"] == labels


def test_another_separator() -> None:
    task = task_of("multi-label-classification", label_separator="|")
    assert task.reads.prepare({"label": "a,b|c"})["label"] == ["a,b", "c"]


@pytest.mark.parametrize("cell", ["[공포", "[1, 2", [["겹"]], '[{"a": 1}]', {"a": 1}])
def test_labels_that_are_no_list_of_words_are_refused(cell: Any) -> None:
    with pytest.raises(BadRow):
        task_of("multi-label-classification").reads.prepare({"label": cell})


@pytest.mark.parametrize("cell", ["긍정", "", "nan", "inf", "1,234", True, None, [1.0]])
def test_a_score_is_a_finite_number(cell: Any) -> None:
    with pytest.raises(BadRow, match="숫자가 아닌"):
        task_of("text-regression").reads.prepare({"text": "글", "label": cell})


def test_lists_where_one_label_was_expected_are_refused_with_the_setting() -> None:
    with pytest.raises(BadRow, match="multi_label"):
        task_of("text-classification").reads.prepare({"text": "글", "label": ["공포", "로맨스"]})


def test_both_spellings_of_labels_are_the_same_rows(manager: Any) -> None:
    lines = '무섭다,"공포,로맨스"\n슬프다,"[""로맨스"", ""공포""]"\n그냥,[]\n웃기다,코미디\n' * 5
    splits = manager({"data": {"multi_label": True}}, train=lines, validation=lines).load_splits()
    assert splits["train"].labels()[:4] == ['["공포", "로맨스"]', '["공포", "로맨스"]', "[]", '["코미디"]']


def test_text_instead_of_a_score_is_reported_with_its_rows(manager: Any) -> None:
    lines = "".join(f"문장 {n},{'없음' if n in (3, 7) else n / 4}\n" for n in range(1, 21))
    data = manager({"model": {"task": "text-regression"}}, train=lines)
    with pytest.raises(DataError) as error:
        data.load_splits()
    for words in ("숫자가 아닌 라벨 2행", "3, 7번째", "train.csv"):
        assert words in str(error.value)


def test_a_label_missing_in_train_is_reported_with_its_row(manager: Any) -> None:
    data = manager(
        {"data": {"multi_label": True}}, train='가,"a,b"\n나,b\n' * 10, validation="다,a\n", test='라,a\n마,"a,z"\n'
    )
    with pytest.raises(DataError) as error:
        data.label_names(data.load_splits())
    for words in ("없는 라벨이 있습니다: z", "test.csv, 2번째 행", "a, b"):
        assert words in str(error.value)


@pytest.mark.parametrize("several", [False, True])
def test_a_rare_label_is_not_held_out_whole(manager: Any, several: bool) -> None:
    """Thirty labels of which half have one row: too few to stratify by."""
    lines = "".join(f"문장 {n},{f'드문{n}' if n % 2 else f'흔한{n % 15}'}\n" for n in range(100))
    data = manager({"data": {"multi_label": several, "validation_split": 0.3}}, train=lines)
    splits = data.load_splits()
    assert set(data.label_counts(splits["validation"])) <= set(data.label_counts(splits["train"]))
    assert len(splits["train"]) + len(splits["validation"]) == 100
    assert len(splits["validation"]) > 5


def test_lines_of_pairs_are_divided_by_a_tab(manager: Any) -> None:
    data = manager({"data": {"text_pair_column": "second"}}, train="가,0\n")
    ((rows, originals),) = data.load_unlabelled(None, ["정말 재미있다\t너무 지루하다\n", "\t둘째만\n"]).chunks()
    assert rows.table[:] == {"row": [1], "text": ["정말 재미있다"], "text_pair": ["너무 지루하다"]}
    assert [original["second"] for original in originals] == ["너무 지루하다", "둘째만"]
    with pytest.raises(DataError) as error:
        data.load_unlabelled(None, ["가\t나\n", "하나뿐\n"])
    for words in ("tab", "2번째 줄"):
        assert words in str(error.value)


def test_predictions_as_csv_read_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first row had no text, and so has no prediction; several labels are JSON."""
    caplog.set_level("INFO")
    write_predictions(tmp_path / "out.csv", [{"text": ""}, {"text": "글", "label": ["a", "b,c"], "score": [0.9, 0.5]}])
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        empty, row = csv.DictReader(file)
    assert f"2행을 저장했습니다: {tmp_path / 'out.csv'}" in caplog.text
    assert empty == {"text": "", "label": "", "score": ""}
    assert (json.loads(row["label"]), json.loads(row["score"])) == (["a", "b,c"], [0.9, 0.5])
    assert task_of("multi-label-classification").reads.prepare({"label": row["label"]})["label"] == ["a", "b,c"]


@pytest.mark.parametrize(("cell", "shown"), [('["a", "b"]', "a, b"), ("[]", "없음"), (None, "")])
def test_labels_are_shown_as_words(cell: str | None, shown: str) -> None:
    row = {"text": "글"} if cell is None else {"text": "글", "label": cell}
    assert task_of("multi-label-classification").shows.show(row) == ("글", shown)


def test_every_row_of_korsts_is_read(real_data: Path, tmp_path: Path) -> None:
    """The texts have quotation marks that are never closed."""
    data = {"dataset_name": str(real_data / "korsts"), "dataset_cache_dir": str(tmp_path), "text_column": "sentence1",
            "text_pair_column": "sentence2", "label_column": "score"}  # fmt: skip
    settings = Settings.model_validate({"model": {"num_labels": 1}, "data": data})
    splits = DataManager(settings, find_task(settings)).load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 5749, "validation": 1500, "test": 1379}
    for name, file in (("train", "sts-train.tsv"), ("validation", "sts-dev.tsv"), ("test", "sts-test.tsv")):
        lines = (real_data / "korsts" / file).read_text(encoding="utf-8").splitlines()[1:]
        fields = [line.split("\t") for line in lines if line]
        assert [float(label) for label in splits[name].labels()] == [float(field[4]) for field in fields]
        assert splits[name].table["text"][:] == [field[5] for field in fields]
        assert splits[name].table["text_pair"][:] == [field[6] for field in fields]
