"""Pretrains the blank encoder of make_encoder.py to fill masks, on one GPU in minutes.

usage: python examples/pretrain_encoder.py MODEL TEXTS OUT_DIR --steps N      (TEXTS: one text a line)

Several texts are packed into each row and do not see each other, so all steps have one shape, and one is recorded as a
CUDA graph and repeated. Matrices of the layers are stepped by Muon (Jordan et al. 2024), the other weights by Adam.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerFast

LENGTH = 128  # tokens of a row; a longer text is cut
OPEN_ROWS = 16  # rows that a text may still go to while texts are packed
HELD_OUT = 3_000  # texts
BETAS = (0.9, 0.98)
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # of those that take a mask


@dataclass(frozen=True)
class Plan:
    """What the steps do.

    Attributes:
        steps: Number of steps.
        rows: Rows of a step.
        learning_rate: Adam's, at its highest. It rises over `warmup` steps and falls to 0 with the last one.
        matrix_rate: Muon's, likewise.
        warmup: Number of steps.
        decay: Weight decay of matrices, as a share of the learning rate.
        mask_rates: Share of words that are masked, at the beginning and at the end.
    """

    steps: int
    rows: int = 128
    learning_rate: float = 2e-3
    matrix_rate: float = 3e-3
    warmup: int = 300
    decay: float = 0.05
    mask_rates: tuple[float, float] = (0.25, 0.15)

    @property
    def most_masked(self) -> int:
        """Places in a step for masked tokens; some stay empty."""
        return int(self.mask_rates[0] * self.rows * LENGTH * 1.03) // 8 * 8


@dataclass(frozen=True)
class Rows:
    """Texts packed into rows, each tensor (rows, LENGTH) int64.

    Attributes:
        ids: Token ids, 0 for padding.
        positions: Place of a token in its text.
        texts: Number of a token's text in its row, -1 for padding.
        words: Number of a token's word (어절) in its row. A special token is a word of its own.
        is_special: Which tokens are never masked, bool.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    texts: torch.Tensor
    words: torch.Tensor
    is_special: torch.Tensor

    def __getitem__(self, chosen: torch.Tensor) -> Rows:
        return Rows(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.ids)


# --- data ---


def packed(texts: list[list[int]]) -> np.ndarray:
    """Put each text into the first open row that has room, and close the fullest when there are too many."""
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    for text in texts:
        row = next((row for row in rows if len(row) + len(text) <= LENGTH), None)
        if row is None:
            rows.append(row := [])
        row += text
        if len(rows) > OPEN_ROWS:
            fullest = max(range(len(rows)), key=lambda place: len(rows[place]))
            closed.append(rows.pop(fullest))
    return np.array([row + [0] * (LENGTH - len(row)) for row in closed + rows])


def rows_of(texts: list[list[int]], tokenizer: PreTrainedTokenizerFast, device: torch.device) -> Rows:
    """Pack tokenized texts."""
    ids = torch.from_numpy(packed(texts)).to(device)
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    goes_on = torch.tensor([piece.startswith("##") for piece in pieces], device=device)
    begins, place = ids == tokenizer.cls_token_id, torch.arange(LENGTH, device=device).expand_as(ids)
    is_special = begins | (ids == tokenizer.sep_token_id) | (ids == tokenizer.pad_token_id)
    return Rows(
        ids,
        positions=place - torch.where(begins, place, 0).cummax(1).values,
        texts=torch.where(ids == tokenizer.pad_token_id, -1, begins.cumsum(1) - 1),
        words=(~goes_on[ids] | is_special).cumsum(1) - 1,
        is_special=is_special,
    )


# --- the model: BERT over packed rows, computed from the parameters of Hugging Face's module ---

Weights = dict[str, torch.Tensor]


def linear(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"].to(x.dtype), weights[f"{name}.bias"].to(x.dtype))


def norm(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    weight, bias = weights[f"{name}.weight"].to(x.dtype), weights[f"{name}.bias"].to(x.dtype)
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)


def hidden_states(model: BertForMaskedLM, weights: Weights, ids: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return the last layer's states, (rows, LENGTH, hidden). A token attends to the tokens of its own text."""
    config, embeddings = model.config, "bert.embeddings"
    shape = (*ids.shape, config.hidden_size)
    x = weights[f"{embeddings}.token_type_embeddings.weight"][0]
    for name, places in (("word", ids), ("position", rows.positions)):
        x = x + weights[f"{embeddings}.{name}_embeddings.weight"].index_select(0, places.flatten()).view(shape)
    x = norm(x, weights, f"{embeddings}.LayerNorm").to(torch.bfloat16 if x.is_cuda else x.dtype)
    together = rows.texts[:, None, :, None] == rows.texts[:, None, None, :]
    for number in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        split = (*ids.shape, config.num_attention_heads, -1)
        query, key, value = (
            linear(x, weights, f"{layer}.attention.self.{name}").view(split).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        with sdpa_kernel(KERNELS):
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=together)
        y = y.transpose(1, 2).reshape(shape)
        y = linear(y, weights, f"{layer}.attention.output.dense")
        x = norm(x + y, weights, f"{layer}.attention.output.LayerNorm")
        y = linear(F.gelu(linear(x, weights, f"{layer}.intermediate.dense")), weights, f"{layer}.output.dense")
        x = norm(x + y, weights, f"{layer}.output.LayerNorm")
    return x


def logits_of(states: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Return the logits over the vocabulary, (..., vocabulary) float32."""
    head = "cls.predictions"
    x = norm(F.gelu(linear(states, weights, f"{head}.transform.dense")), weights, f"{head}.transform.LayerNorm")
    embeddings, bias = weights["bert.embeddings.word_embeddings.weight"], weights[f"{head}.bias"]
    return F.linear(x, embeddings.to(x.dtype), bias.to(x.dtype)).float()


# --- the loss ---


def masked(rows: Rows, rate: torch.Tensor | float, mask_id: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask words as BERT does: 80% of the chosen tokens become the mask, 10% any token, 10% stay.

    Returns:
        The ids, and which tokens were chosen, bool.
    """
    drawn = torch.rand(rows.ids.shape, device=rows.ids.device)
    chosen = (drawn.gather(1, rows.words) < rate) & ~rows.is_special
    fate = torch.rand(rows.ids.shape, device=rows.ids.device)
    anything = torch.randint(5, vocabulary, rows.ids.shape, device=rows.ids.device)
    ids = torch.where(chosen & (fate < 0.8), mask_id, rows.ids)
    return torch.where(chosen & (fate >= 0.9), anything, ids), chosen


def loss_of(
    model: BertForMaskedLM, weights: Weights, rows: Rows, rate: torch.Tensor, plan: Plan, mask_id: int
) -> torch.Tensor:
    """Return the mean loss of masked tokens."""
    ids, chosen = masked(rows, rate, mask_id, model.config.vocab_size)
    states = hidden_states(model, weights, ids, rows).flatten(0, 1)
    places = chosen.flatten().float().topk(plan.most_masked, sorted=False).indices  # a fixed number of places
    original = torch.where(chosen.flatten()[places], rows.ids.flatten()[places], -100)
    return F.cross_entropy(logits_of(states.index_select(0, places), weights), original)


# --- the optimizer ---


class Optimizer:
    """Muon for the matrices of the layers and Adam for the rest. Rates are tensors, which a CUDA graph reads anew."""

    def __init__(self, weights: Weights, plan: Plan) -> None:
        self.plan, self.weights = plan, list(weights.values())
        matrices = [weight for name, weight in weights.items() if "encoder.layer" in name and weight.ndim == 2]
        self.others = [weight for weight in self.weights if not any(weight is matrix for matrix in matrices)]
        self.decayed = [weight for weight in self.weights if weight.ndim == 2]
        self.first = [torch.zeros_like(weight) for weight in self.others]
        self.second = [torch.zeros_like(weight) for weight in self.others]
        shapes = dict.fromkeys(tuple(matrix.shape) for matrix in matrices)
        self.groups = [[matrix for matrix in matrices if tuple(matrix.shape) == shape] for shape in shapes]
        self.momenta = [torch.zeros_like(torch.stack(group)) for group in self.groups]
        device = self.weights[0].device
        self.factor, self.adam_factor = torch.zeros((), device=device), torch.zeros((), device=device)

    def set_factor(self, factor: float, step: int) -> None:
        """Set the share of the highest learning rate. Adam's corrects its averages, which began at 0 with step 1."""
        self.factor.fill_(factor)
        self.adam_factor.fill_(factor * math.sqrt(1 - BETAS[1] ** step) / (1 - BETAS[0] ** step))

    @torch.no_grad()
    def step(self) -> None:
        """Clip the gradient's norm to 1 and step all weights."""
        gradients = [weight.grad for weight in self.weights]
        length = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (1 / (length + 1e-6)).clamp(max=1.0))
        torch._foreach_mul_(self.decayed, 1 - self.factor * self.plan.decay * self.plan.learning_rate)
        gradients = [weight.grad for weight in self.others]
        torch._foreach_lerp_(self.first, gradients, 1 - BETAS[0])
        torch._foreach_mul_(self.second, BETAS[1])
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - BETAS[1])
        spread = torch._foreach_sqrt(self.second)
        torch._foreach_add_(spread, 1e-8)
        updates = torch._foreach_div(self.first, spread)
        torch._foreach_mul_(updates, self.adam_factor * -self.plan.learning_rate)
        torch._foreach_add_(self.others, updates)
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum.lerp_(gradient, 0.05)
            size = 0.2 * math.sqrt(max(gradient.shape[1:]))  # the usual size of Adam's updates
            update = orthogonal(gradient.lerp(momentum, 0.95)) * (self.factor * -self.plan.matrix_rate * size)
            torch._foreach_add_(group, list(update.unbind()))


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the nearest orthogonal matrices, nearly, by Muon's five Newton-Schulz iterations."""
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else matrices.dtype)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if is_tall else x).float()


# --- training ---


def train(model: BertForMaskedLM, rows: Rows, plan: Plan, mask_id: int, report: Callable[[int, float], None]) -> None:
    """Train a model in place. On a GPU the first steps run as they stand; the rest repeat a recorded one."""
    device, weights = model.device, dict(model.named_parameters())
    optimizer = Optimizer(weights, plan)
    chosen = torch.zeros(plan.rows, dtype=torch.long, device=device)
    rate, found = torch.zeros((), device=device), torch.zeros((), device=device)

    def step() -> None:
        loss = loss_of(model, weights, rows[chosen], rate, plan, mask_id)
        for weight in optimizer.weights:
            weight.grad = None
        loss.backward()
        optimizer.step()
        found.copy_(loss.detach())

    run, per_epoch, order = step, len(rows) // plan.rows, torch.empty(0)
    for number in range(plan.steps):
        if number % per_epoch == 0:
            order = torch.randperm(len(rows), device=device)
        chosen.copy_(order[number % per_epoch * plan.rows :][: plan.rows])
        done = number / plan.steps
        rate.fill_(plan.mask_rates[0] + (plan.mask_rates[1] - plan.mask_rates[0]) * done)
        optimizer.set_factor(min(1.0, (number + 1) / plan.warmup) * (1 - done), number + 1)
        if device.type == "cuda" and number < 5:
            on_a_side_stream(step)
        elif device.type == "cuda" and number == 5:
            run = recorded(step, optimizer.weights)
            run()
        else:
            run()
        if (number + 1) % 500 == 0 or number + 1 == plan.steps:
            report(number + 1, float(found))


def on_a_side_stream(step: Callable[[], None]) -> None:
    """Run a step on a stream of its own, as those before a recording have to."""
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        step()
    torch.cuda.synchronize()


def recorded(step: Callable[[], None], weights: list[torch.Tensor]) -> Callable[[], None]:
    """Return a function that repeats a step's kernels without launching them one by one."""
    for weight in weights:
        weight.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.no_grad()
def measure(model: BertForMaskedLM, rows: Rows, mask_id: int) -> tuple[float, float]:
    """Return the loss and the accuracy at masked tokens, a fifth of all words, the same in every call."""
    torch.manual_seed(1)
    weights, totals = dict(model.named_parameters()), torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(rows), 128):
        part = rows[torch.arange(start, min(start + 128, len(rows)), device=rows.ids.device)]
        ids, chosen = masked(part, 0.2, mask_id, model.config.vocab_size)
        logits, original = logits_of(hidden_states(model, weights, ids, part)[chosen], weights), part.ids[chosen]
        right = (logits.argmax(-1) == original).sum()
        totals += torch.tensor([float(F.cross_entropy(logits, original, reduction="sum")), int(right), len(original)])
    return float(totals[0] / totals[2]), float(totals[1] / totals[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, default=Plan.rows, help="rows of 128 tokens in a step")
    arguments = parser.parse_args()
    plan, began = Plan(arguments.steps, arguments.rows), time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()
    ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    held_out = min(HELD_OUT, len(texts) // 10)
    validation, training = (rows_of(part, tokenizer, device) for part in (ids[:held_out], ids[held_out:]))
    print(f"{len(texts):,} texts in {len(training):,} rows; {held_out:,} texts held out", flush=True)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(arguments.model).to(device)

    def report(step: int, loss: float) -> None:
        epochs = step * plan.rows / len(training)
        print(f"{time.monotonic() - began:.0f} s, step {step:,}, epoch {epochs:.2f}: loss {loss:.4f}", flush=True)

    train(model, training, plan, tokenizer.mask_token_id, report)
    print("held out: loss {:.4f}, accuracy {:.4f}".format(*measure(model, validation, tokenizer.mask_token_id)))
    model.half().save_pretrained(arguments.out_dir)
    AutoTokenizer.from_pretrained(arguments.model).save_pretrained(arguments.out_dir)  # without the cut to 128 tokens


if __name__ == "__main__":
    main()
