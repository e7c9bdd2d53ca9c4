"""Metric names as a person reads them, in the log, the model card and messages."""

from __future__ import annotations

from collections.abc import Mapping

METRIC_NAMES = {
    "loss": "손실",
    "accuracy": "정확도",
    "macro_f1": "macro-F1",
    "perplexity": "perplexity",
    "masked_accuracy": "mask 정확도",
    "loss_per_char": "글자당 손실",
    "perplexity_per_char": "글자당 perplexity",
    "micro_f1": "micro-F1",
    "threshold": "임계값",
    "relation_micro_f1": "micro-F1(no_relation 제외)",
    "relation_auprc": "AUPRC",
    "joint_goal_accuracy": "JGA",
    "slot_f1": "슬롯 F1",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "f1_at_3": "F1(3점 기준)",
    "exact_match": "EM",
    **{"chrf": "chrF", "bleu": "BLEU", "bleu_char": "글자 BLEU", "rouge_l": "글자 ROUGE-L"},
    **{"bleu_morpheme": "형태소 BLEU", "rouge_l_morpheme": "형태소 ROUGE-L"},
    "ended": "종료 토큰으로 끝난 답",
    "repetition": "반복",
    "hangul": "한글",
    "hanja": "한자",
    "polite": "존댓말로만 쓴 답",
    "mixed_politeness": "존댓말과 반말이 섞인 답",
    "broken": "깨진 글자가 있는 답",
    "f1": "F1",
    "rouge_w": "ROUGE-W",
    "klue_exact_match": "EM(KLUE)",
    "null_threshold": "답 없음 임계값",
    "entity_macro_f1": "개체 macro-F1",
    "entity_micro_f1": "개체 micro-F1",
    "char_macro_f1": "글자 macro-F1",
    "char_macro_f1_without_o": "글자 macro-F1(O 제외)",
    "klue_entity_macro_f1": "개체 macro-F1(KLUE)",
    "klue_char_macro_f1": "글자 macro-F1(KLUE)",
    **{"uas": "UAS", "las": "LAS"},
    "klue_uas_macro_f1": "UAS macro-F1(KLUE)",
    "klue_las_macro_f1": "LAS macro-F1(KLUE)",
    "answer_accuracy": "좋은 답의 확률이 더 높은 비율",
    "reward_accuracy": "보상 정확도",
    "reward_margin": "보상 차이",
    "reward_good": "좋은 답의 보상",
    "reward_bad": "나쁜 답의 보상",
    **{f"recall_at_{depth}": f"recall@{depth}" for depth in (1, 5, 10)},
    "mrr_at_10": "MRR@10",
    "ndcg_at_10": "nDCG@10",
    "window_accuracy": "window 안에서 정답 문서가 가장 가까운 비율",
    "top_accuracy": "맨 위가 정답인 질문",
    "average_precision": "AP",
}


def display_name(metric: str) -> str:
    """Return the name that people read, or the metric's own name where it has no other."""
    return METRIC_NAMES.get(metric, metric)


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Format metrics as one phrase: `손실 0.3120, 정확도 0.8712`."""
    return ", ".join(f"{display_name(name)} {value:.4f}" for name, value in metrics.items())


def lower_is_better(metric: str) -> bool:
    """Return whether a lower value of a metric is the better one."""
    return metric.startswith(("loss", "perplexity"))
