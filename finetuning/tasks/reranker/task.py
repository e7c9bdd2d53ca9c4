"""A reranker: how well a passage answers a query, by a cross-encoder that reads both together."""

from __future__ import annotations

from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.reranker.encoding import PairEncoder
from finetuning.tasks.reranker.reader import RerankReader
from finetuning.tasks.reranker.scoring import RerankScorer
from finetuning.tasks.reranker.showing import RerankPresenter

_USAGE = """
import torch

query, passages = "한글은 누가 만들었나?", ["한글은 세종대왕이 만들었다.", "김치는 발효 식품이다."]
inputs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    print(model(**inputs).logits.squeeze(-1).sigmoid())
# sentence_transformers: CrossEncoder(folder).rank(query, passages)
"""


class RerankerTask(Task):
    """One output for a query and a passage: cross-entropy of labels, a softmax over a query's passages, and others."""

    name = "reranker"
    aliases = ("cross-encoder", "reranking", "text-ranking", "리랭커", "재순위화", "교차 인코더")
    auto_class = "AutoModelForSequenceClassification"
    pipeline = None
    usage = _USAGE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = RerankReader(settings)
        self.encodes = PairEncoder(settings)
        self.scores = RerankScorer(settings)
        self.shows = RerankPresenter(self.scores)
