"""Vocabulary extension: what the tokenizer does before and after, new rows, and runs that train and save them."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from exceptions import DataError, ModelError, SettingsError, StopRequested
from finetuning.config.schema import Settings
from finetuning.models.vocabulary import (
    check_task,
    check_tokenizer,
    extend_tokenizer,
    initialise_rows,
    vocabulary_parameters,
)
from finetuning.models.vocabulary_cache import learn_cached
from finetuning.models.vocabulary_learning import Learned, learn
from finetuning.tasks.registry import find_task
from tests.support.cli import Cli, data_flags
from tests.support.runs import StopAfter, check_resumed_is_whole, run_train
from tests.support.texts import NEGATIVE, POSITIVE

TEXTS = [text for text in POSITIVE + NEGATIVE for _ in range(2)] + ["ㅋㅋㅋㅋ 재미있다", "ㅋㅋㅋㅋ"]
WANTED = 40
NO_HANGUL = [
    "plain English, 12.5%", "naïve café", "日本語のテスト", "中文的文本", "ㄅㄆㄇ", "ꀀꆈꌠ", "🙂🇰🇷", "\x00\t\n",
    "한글".encode().decode("latin-1"),
]  # fmt: skip


def made_tokenizer(folder: Path, ignore_merges: bool = False) -> Path:
    """A byte-level BPE that knows a little English and has a special token with an id after its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe", "íķ"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("í", "ķ")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>"])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", model_max_length=256).save_pretrained(folder)
    return folder


def tokenizer_at(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["merges", "ignore_merges"])
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """A tokenizer, the same extended, and the extension."""
    folder = made_tokenizer(tmp_path_factory.mktemp("tokenizer"), request.param)
    old, new = tokenizer_at(folder), tokenizer_at(folder)
    return old, new, extend_tokenizer(new, learn(TEXTS, new, WANTED).merges)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


# --- the tokenizer ---


def test_text_without_hangul_is_cut_as_before(tokenizers: tuple[Any, Any, Any]) -> None:
    old, new, _ = tokenizers
    drawn = random.Random(0)
    others = [code for code in range(0x20, 0x11000) if not (0x1100 <= code < 0x1200 or 0x3130 <= code < 0x3190)]
    others = [code for code in others if not (0xA960 <= code < 0xA980 or 0xAC00 <= code < 0xE000)]
    texts = NO_HANGUL + ["".join(map(chr, drawn.choices(others, k=40))) for _ in range(300)]
    assert [ids_of(new, text) for text in texts] == [ids_of(old, text) for text in texts]


def test_korean_text_takes_fewer_tokens_and_comes_back_whole(tokenizers: tuple[Any, Any, Any]) -> None:
    old, new, _ = tokenizers
    for text in [*TEXTS, "처음 보는 글자: 뷁, ㅋㅋ the 재미있다<|end|>"]:
        assert new.decode(ids_of(new, text)) == text
        assert len(ids_of(new, text)) < len(ids_of(old, text))


def test_ids_that_exist_stay_and_new_ones_come_after_all(tokenizers: tuple[Any, Any, Any], tmp_path: Path) -> None:
    old, new, extension = tokenizers
    assert extension.first_id == len(old)
    assert extension.rows == len(new) == len(old) + WANTED
    new.save_pretrained(tmp_path)
    again = tokenizer_at(tmp_path)
    assert {piece: number for piece, number in again.get_vocab().items() if number < len(old)} == old.get_vocab()
    assert all(ids_of(again, text) == ids_of(new, text) for text in TEXTS + NO_HANGUL)
    assert ids_of(again, "<|end|>") == ids_of(old, "<|end|>") == [len(old) - 1]
    spelled = again.convert_ids_to_tokens(list(range(extension.first_id, extension.rows)))
    for piece, replaced in zip(spelled, extension.replaced, strict=True):
        assert "".join(old.convert_ids_to_tokens(list(replaced))) == piece
        assert len(replaced) > 1 and max(replaced) < extension.first_id


def test_learning_is_the_same_in_any_order_and_ends_where_nothing_repeats(tmp_path: Path) -> None:
    tokenizer = tokenizer_at(made_tokenizer(tmp_path))
    learned = learn(TEXTS, tokenizer, WANTED)
    assert learned == learn(TEXTS[::-1], tokenizer, WANTED)
    assert learned.texts == len(TEXTS) and learned.characters == sum(map(len, TEXTS))
    fewer = learn(TEXTS, tokenizer, WANTED // 2).merges
    assert fewer == learned.merges[: len(fewer)]
    assert Learned.from_json(learned.to_json()) == learned
    every = learn(TEXTS, tokenizer, 10**6)
    extension = extend_tokenizer(tokenizer, every.merges)
    assert WANTED < len(extension.replaced) < 10**6
    assert len(ids_of(tokenizer, " 재미있다")) == 1  # a word that repeats is a piece in the end
    with pytest.raises(DataError, match="서브워드를 찾지 못했습니다"):
        learn(["plain English", "한 번"], tokenizer, WANTED)


@pytest.mark.parametrize("broken", ["{", "[" * 200_000, "\xff"])
def test_broken_subwords_in_the_cache_are_learned_again(broken: str, tmp_path: Path) -> None:
    tokenizer, cache = tokenizer_at(made_tokenizer(tmp_path / "model")), tmp_path / "cache"
    learned = learn_cached(TEXTS, "data", tokenizer, WANTED, cache, lambda: None)
    (path,) = cache.iterdir()
    path.write_bytes(broken.encode("latin-1"))
    assert learn_cached(TEXTS, "data", tokenizer, WANTED, cache, lambda: None) == learned


def test_tokenizers_and_tasks_without_byte_level_merges_are_refused(
    tiny_model: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    check_tokenizer(tokenizer_at(tiny_causal))
    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0)], 0)))
    spaces = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    for tokenizer, kind in (
        (tokenizer_at(tiny_model), "WordPiece"),
        (unigram, "Unigram"),
        (spaces, "byte-level이 아님"),
    ):
        with pytest.raises(ModelError, match=kind):
            check_tokenizer(tokenizer)
    with pytest.raises(SettingsError, match="어휘를 확장할 수 없습니다"):
        check_task(find_task(Settings.model_validate({"model": {"task": "fill-mask", "extend_vocabulary": 10}})))


# --- the model ---


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare_rows", [0, 7])
def test_new_rows_are_the_mean_of_those_of_the_pieces_replaced(
    tied: bool, spare_rows: int, tokenizers: tuple[Any, Any, Any]
) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    old, _, extension = tokenizers
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(old) + spare_rows, tie_word_embeddings=tied, **sizes))
    before = {name: parameter.detach().clone() for name, parameter in vocabulary_parameters(model).items()}
    initialise_rows(model, extension)
    after = vocabulary_parameters(model)
    assert len(after) == (1 if tied else 2)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert model.config.vocab_size == extension.rows
    for name, parameter in after.items():
        assert torch.equal(parameter[: len(old)], before[name][: len(old)])
        for number, replaced in enumerate(extension.replaced):
            expected = before[name][list(replaced)].mean(0)
            torch.testing.assert_close(parameter[extension.first_id + number], expected)


# --- runs ---


@pytest.fixture(scope="session")
def tied_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama of random weights, its head tied, and the tokenizer made here."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = made_tokenizer(tmp_path_factory.mktemp("tied") / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer_at(folder)), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=256, eos_token_id=0, bos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def flags(flags_for: Callable[[str], list[str]], tied_causal: Path) -> list[str]:
    """Return the flags of a short run that adds at most WANTED pieces, without --output_dir."""
    grown = ["--model_name", str(tied_causal), "--set", f"model.extend_vocabulary={WANTED}"]
    return [*flags_for("text-generation"), *grown]


@pytest.mark.parametrize("method", ["none", "freeze", "dora"])
def test_a_run_is_resumed(method: str, flags: list[str], tmp_path: Path) -> None:
    adapter = ["--set", f"model.adapter.method={method}", "--set", "model.adapter.layers=1"]
    check_resumed_is_whole([*flags, *adapter], StopAfter(looks=3), tmp_path)


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_run_beside_quantised_weights_is_resumed(kind: str, flags: list[str], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    quantised = ["--set", "model.adapter.method=lora", "--set", f"model.quantization={kind}"]
    check_resumed_is_whole([*flags, *quantised], StopAfter(looks=3), tmp_path)


@pytest.mark.parametrize("model", ["tied_causal", "tiny_causal"])
def test_an_adapter_is_saved_with_embedding_and_head_and_merged_for_others(
    model: str, flags: list[str], request: pytest.FixtureRequest, tmp_path: Path, cli: Cli
) -> None:
    """PEFT loads the adapter onto the resized base; the exported model gives the same logits."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, folder = request.getfixturevalue(model), tmp_path / "model"
    lora = ["--model_name", str(base), "--set", "model.adapter.method=lora", "--output_dir", str(folder)]
    run_train([*flags, *lora], StopAfter())
    done = cli("export", "--output_dir", folder)
    assert done.code == 0, done.err
    tokenizer = tokenizer_at(folder / "merged")
    ids = torch.tensor([ids_of(tokenizer, "### 질문\n정말 재미있다 긍정 부정 the")])
    assert int(ids.max()) >= len(tokenizer_at(base))
    merged, resized, before = (
        AutoModelForCausalLM.from_pretrained(place).eval() for place in (folder / "merged", base, base)
    )
    resized.resize_token_embeddings(len(tokenizer))
    adapted = PeftModel.from_pretrained(resized, folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    embedding, head = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    assert len(embedding) == len(tokenizer)
    assert (embedding is head) == merged.config.tie_word_embeddings
    for trained, old in zip((embedding, head), vocabulary_parameters(before).values(), strict=False):
        assert not torch.allclose(trained[: len(old)], old)


def test_a_saved_adapter_is_evaluated_and_predicts(flags: list[str], tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "model"
    run_train([*flags, "--set", "model.adapter.method=lora", "--output_dir", str(folder)], StopAfter())
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    done = cli("evaluate", "--output_dir", folder, *data_flags(folder), "--split", "validation")
    assert done.code == 0, done.err
    measured = json.loads((folder / "metrics-validation.json").read_text(encoding="utf-8"))
    assert measured["loss_per_char"] == pytest.approx(summary["validation"]["loss_per_char"], rel=1e-4)
    done = cli("predict", "--output_dir", folder, stdin="정말 재미있다 3\n")
    assert done.code == 0, done.err
    assert "generated" in json.loads(done.out)


def test_a_resumed_run_has_the_pieces_that_it_was_begun_with(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run needs neither the data cache nor new learning."""
    flags = [*flags, "--output_dir", str(tmp_path / "model")]
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=3))
    for path in (tmp_path / "cache").rglob("vocabulary-*.json"):
        path.unlink()

    def learn_anew(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("finetuning.models.vocabulary_cache.learn", learn_anew)
    run_train([*flags, "--resume"], StopAfter())
    kept = Learned.from_json((tmp_path / "model" / "vocabulary.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer_at(tmp_path / "model").get_vocab()
    assert all(left + right in vocabulary for left, right in kept.merges)


def test_pieces_come_from_the_run_of_the_checkpoint(flags: list[str], tmp_path: Path) -> None:
    """The run goes on in the folder of its checkpoint; another folder's pieces are neither read nor replaced."""
    ours, other = tmp_path / "a" / "model", tmp_path / "b" / "model"
    with pytest.raises(StopRequested):
        run_train([*flags, "--output_dir", str(ours)], StopAfter(looks=3))
    begun_with = Learned.from_json((ours / "vocabulary.json").read_text(encoding="utf-8"))
    other.mkdir(parents=True)
    (other / "vocabulary.json").write_text(replace(begun_with, merges=begun_with.merges[:3]).to_json(), "utf-8")
    checkpoint = ["--resume", "--checkpoint_path", str(tmp_path / "a" / "checkpoint-latest")]
    before = (other / "vocabulary.json").read_bytes()
    with pytest.raises(SettingsError, match=r"체크포인트는 .* 폴더의 학습인데"):
        run_train([*flags, "--output_dir", str(other), *checkpoint], StopAfter())
    run_train([*flags, *checkpoint], StopAfter())
    assert Learned.from_json((ours / "vocabulary.json").read_text(encoding="utf-8")) == begun_with
    assert (ours / "summary.json").is_file()
    assert (other / "vocabulary.json").read_bytes() == before


def test_pieces_that_cannot_be_read_end_the_run_with_a_reason(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, "--output_dir", str(tmp_path / "model")]
    with pytest.raises(StopRequested):
        run_train(flags, StopAfter(looks=3))
    for broken in ('{"texts": 3, "mer', "{}", "[1, 2]", "\xff"):
        (tmp_path / "model" / "vocabulary.json").write_bytes(broken.encode("latin-1"))
        with pytest.raises(ModelError, match="깨졌습니다") as error:
            run_train([*flags, "--resume"], StopAfter())
        assert error.value.where.endswith("vocabulary.json")


def test_pieces_in_the_cache_that_cannot_be_read_are_learned_anew(flags: list[str], tmp_path: Path) -> None:
    run_train([*flags, "--output_dir", str(tmp_path / "a" / "model")], StopAfter())
    (cached,) = (tmp_path / "cache").rglob("vocabulary-*.json")
    whole = cached.read_bytes()
    cached.write_bytes(whole[: len(whole) // 2])
    run_train([*flags, "--output_dir", str(tmp_path / "b" / "model")], StopAfter())
    assert cached.read_bytes() == whole


def test_a_run_short_of_memory_extends_its_vocabulary_too(
    flags: list[str],
    short_of_memory: Callable[[int, bool], None],
    tmp_path: Path,
) -> None:
    """The model has rows for the pieces under automatically chosen settings, too."""
    short_of_memory(90, False)
    run_train([*flags, "--output_dir", str(tmp_path / "model")], StopAfter())
    assert "gradient_checkpointing: true" in (tmp_path / "model" / "settings.yaml").read_text(encoding="utf-8")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == len(tokenizer_at(tmp_path / "model"))


def test_plan_shows_how_many_tokens_the_pieces_save(flags: list[str], cli: Cli) -> None:
    done = cli("plan", *flags)
    assert done.code == 0, done.err
    assert f"한국어 서브워드 {WANTED}개를 tokenizer에 추가했습니다" in done.err
    before, after = map(float, re.search(r"검증 데이터의 글자당 토큰: (\S+) → (\S+)", done.err).groups())  # type: ignore[union-attr]
    assert after < before
    fewer = cli("plan", *flags, "--set", "model.extend_vocabulary=100000")
    assert "100,000개보다 적게 추가합니다" in fewer.err


@pytest.mark.parametrize(("task", "code"), [("text-classification", 2), ("text-generation", 4)])
def test_an_impossible_extension_is_refused_before_the_run(
    task: str, code: int, reviews: Path, tiny_model: Path, tmp_path: Path, cli: Cli
) -> None:
    from transformers import AutoTokenizer

    word_pieces = tmp_path / "word-pieces"
    shutil.copytree(tiny_model, word_pieces)
    tokenizer = AutoTokenizer.from_pretrained(word_pieces)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(word_pieces)
    done = cli(
        "--task", task, "--model_name", word_pieces, "--dataset", reviews, "--output_dir", tmp_path / "model",
        "--set", f"data.dataset_cache_dir={tmp_path / 'cache'}", "--set", "model.extend_vocabulary=10",
    )  # fmt: skip
    assert done.code == code, done.err
    assert "어휘를 확장할 수 없습니다" in done.err
    assert "model.extend_vocabulary를 null로" in done.err
    assert not (tmp_path / "model").exists()
