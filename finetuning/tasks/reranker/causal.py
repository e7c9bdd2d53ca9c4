"""A causal model as a reranker: how much likelier it says yes than no to a passage behind its query."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exceptions import ModelError, SettingsError
from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.model_kind import sees_later_tokens
from finetuning.tasks.parts import Rows
from finetuning.tasks.reranker.encoding import PairEncoder
from finetuning.tasks.reranker.reader import RerankReader
from finetuning.tasks.reranker.scoring import RerankScorer
from finetuning.tasks.reranker.showing import RerankPresenter
from finetuning.tasks.tensors import at_least_float32, pad, sequences_of
from finetuning.tasks.text_encoding import read_beginning
from finetuning.tasks.vocabulary import only_head_positions
from finetuning.types import Batch, RandomKey

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_QUERY, _PASSAGE = "{query}", "{passage}"
_QWEN_MARK = "<|im_start|>"
# As Qwen/Qwen3-Reranker-0.6B was trained.
_QWEN = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_KOREAN = "문서가 질문에 답하는 데 도움이 되면 yes, 아니면 no로만 답하세요.\n\n질문: {query}\n\n문서: {passage}\n\n답: "
_USAGE = """
# 질문과 문서를 settings.yaml의 reranker.prompt에 넣은 텍스트의 마지막 토큰에서 yes와 no의 확률을 비교합니다.
# 점수는 softmax([no, yes])[1]입니다. `python finetuning_app.py predict`가 이렇게 계산합니다.
"""


class CausalRerankerTask(Task):
    """The task `reranker` for a model that generates: its score is log p(yes) - log p(no)."""

    name = "causal-reranker"
    aliases = ("generative-reranker", "llm-reranker", "yes-no-reranker", "생성 모델 리랭커")
    auto_class = "AutoModelForCausalLM"
    pipeline = None
    usage = _USAGE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = RerankReader(settings)
        self.encodes = PromptEncoder(settings)
        self.scores = AnswerTokenScorer(settings)
        self.shows = RerankPresenter(self.scores)


class PromptEncoder(PairEncoder):
    """Encodes each passage with its query in the prompt, whose last token is where the answer is read."""

    def fit_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the prompt has a place for both texts; raise SettingsError where it has not."""
        prompt = self.settings.reranker.prompt
        if prompt is not None and not (prompt.count(_QUERY) == prompt.count(_PASSAGE) == 1):
            raise SettingsError(
                "프롬프트에는 {query}와 {passage}가 한 번씩 있어야 합니다.",
                where=f"reranker.prompt: {prompt[:60]!r}",
                remedy="질문이 들어갈 자리에 {query}, 문서가 들어갈 자리에 {passage}를 쓰세요.",
            )

    def tokenized(
        self, queries: Sequence[str], passages: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize prompts; see `PairEncoder.tokenized`. A long one loses the end of its passage.

        Where what stands before the passage fills max_length alone, the pair has no tokens.
        """
        before, after = self._prompt(tokenizer).split(_PASSAGE)
        texts = [f"{before.replace(_QUERY, query)}{passage}" for query, passage in zip(queries, passages, strict=True)]
        beginnings = _ids([before.replace(_QUERY, query) for query in queries], tokenizer, max_length)
        start = [tokenizer.bos_token_id] if _begins_with_bos(tokenizer) else []
        ends = _ids([after.replace(_QUERY, query) for query in queries], tokenizer, max_length)
        columns: dict[str, list[Any]] = {"input_ids": [], "truncated": []}
        for whole, beginning, end in zip(_ids(texts, tokenizer, max_length), beginnings, ends, strict=True):
            room = max_length - len(start) - len(end)
            is_cut = len(whole) > room
            columns["input_ids"].append([] if is_cut and room <= len(beginning) else [*start, *whole[:room], *end])
            columns["truncated"].append(is_cut)
        return columns

    def _prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        has_marks = _QWEN_MARK in tokenizer.get_vocab()
        return self.settings.reranker.prompt or (_QWEN if has_marks else _KOREAN)

    def packs(self) -> bool:
        """Return whether windows may be packed, as `data.packing` says."""
        return self.settings.data.packing is not False

    def collate(
        self, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, key: RandomKey | None
    ) -> Batch:
        """Pad the pairs of examples, one a row; see `RowEncoder.collate`."""
        return self._read_at_ends([[pair] for pair in sequences_of(examples)], examples, tokenizer, shows_padding=True)

    def collate_rows(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, key: RandomKey | None = None) -> Batch:
        """Put the pairs of each row's examples one behind the other; see `RowEncoder.collate_rows`."""
        examples = [example for row in rows for example in row]
        return self._read_at_ends([list(sequences_of(row)) for row in rows], examples, tokenizer, shows_padding=False)

    def _read_at_ends(
        self, rows: Rows, examples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase,
        shows_padding: bool,
    ) -> Batch:  # fmt: skip
        """Collate rows of pairs; `places` are their last tokens."""
        import torch

        joined = [{"input_ids": list(itertools.chain(*(pair["input_ids"] for pair in row)))} for row in rows]
        inputs, tokens = pad(joined, tokenizer)
        positions, places = torch.zeros_like(inputs["input_ids"]), list[int]()
        for number, row in enumerate(rows):
            start = 0
            for pair in row:
                end = start + len(pair["input_ids"])
                positions[number, start:end] = torch.arange(end - start)
                places.append(number * positions.shape[1] + end - 1)
                start = end
        inputs["position_ids"] = positions
        if not shows_padding:
            del inputs["attention_mask"]  # positions that restart tell the pairs apart
        return self.listed(Batch(inputs, None, 0, tokens, places=torch.tensor(places)), examples)


class AnswerTokenScorer(RerankScorer):
    """The score of a pair: how much likelier than the token of no that of yes is behind the prompt.

    Args:
        settings: Settings of the run.

    Attributes:
        answers: Ids of the tokens of yes and of no, from `fit_model`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.answers: tuple[int, int] | None = None

    def config_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return nothing: the model's own head is read."""
        return {}

    def fit_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find the tokens of the two answers; see `Scorer.fit_model`. Raise ModelError for an encoder."""
        if sees_later_tokens(model.config):
            raise ModelError(
                f"{model.config.model_type} 모델은 뒤에 오는 토큰까지 보므로 yes와 no로 답하지 않습니다.",
                where=f"model.name: {self.settings.model.name}",
                remedy="인코더는 --task reranker 플래그로 학습하거나, Qwen 같은 생성 모델을 고르세요.",
            )
        self.threshold = getattr(model.config, "decision_threshold", self.threshold)
        options = self.settings.reranker
        first, second = (_first_token(text, tokenizer) for text in (options.yes_token, options.no_token))
        if first is None or second is None or first == second:
            raise SettingsError(
                "관련 있다는 답과 없다는 답의 첫 토큰이 이 tokenizer에서 같거나 없습니다: "
                f"{options.yes_token}, {options.no_token}",
                where="reranker.yes_token, reranker.no_token",
                remedy="첫 토큰이 서로 다른 말을 고르세요. 한글은 여러 토큰으로 나뉘는 일이 많으므로 yes와 no가 "
                "안전합니다.",
            )
        self.answers = first, second

    def forward(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Return log p(yes) - log p(no) of each pair, (pairs,)."""
        assert self.answers is not None
        yes, no = self.answers
        with only_head_positions(model, batch):
            logits: torch.Tensor = model(**batch.inputs, use_cache=False).logits
        return at_least_float32(logits[0, :, yes]) - at_least_float32(logits[0, :, no])


def _ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[list[int]]:
    """Return the ids of texts without special tokens of the tokenizer's own, enough of each to fill `tokens`."""
    read = [read_beginning(tokenizer, text, tokens) for text in texts]
    found: list[list[int]] = tokenizer(read, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return found


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def _first_token(text: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) else None
