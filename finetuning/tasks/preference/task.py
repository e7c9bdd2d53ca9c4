"""Training a language model on preferences: which of two answers is better, or whether an answer is good."""

from __future__ import annotations

from finetuning.config.schema import Settings
from finetuning.tasks.base import Task
from finetuning.tasks.generation.causal import ConversationPresenter
from finetuning.tasks.preference.encoding import PreferenceEncoder
from finetuning.tasks.preference.reader import PreferenceReader
from finetuning.tasks.preference.scoring import PreferenceScorer


class PreferenceTask(Task):
    """A loss over answers, `preference.loss`, usually of a model that was trained on conversations before."""

    name = "preference"
    aliases = ("dpo", "preference-optimization", "선호 학습", "선호 최적화")
    auto_class = "AutoModelForCausalLM"
    pipeline = "text-generation"
    objective = "preference"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reads = PreferenceReader(settings)
        self.encodes = PreferenceEncoder(settings)
        self.scores = PreferenceScorer(settings)
        self.shows = ConversationPresenter()
