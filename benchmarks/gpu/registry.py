"""The checks, those first whose answers decide most."""

from __future__ import annotations

from benchmarks.gpu.card import attention, card
from benchmarks.gpu.correctness import graphs, half_precision, parity, resume
from benchmarks.gpu.memory import cut_again, estimate, full_1b, qlora
from benchmarks.gpu.plan import Check
from benchmarks.gpu.speed import compiled, peers, rows, short, start
from benchmarks.gpu.waits import waits
from benchmarks.gpu.ways import flex, ways

CHECKS = (
    Check("card", "what the card is, and its rate of bf16 products", card, 4),
    Check("parity", "loss and gradient on the card and in every layout, beside the CPU's", parity, 16),
    Check("short", "BERT-base on short texts beside Trainer, and Trainer tuned", short, 65),
    Check("rows", "1B rows of 2,048 tokens beside Trainer and the rate of products", rows, 35),
    Check("full-1b", "peak of all 1B weights on a card of 8 GB", full_1b, 16),
    Check("waits", "waits for the device between two lines of the log", waits, 16),
    Check("resume", "a resumed run, to the bit", resume, 60),
    Check("graphs", "steps whose passes are recorded beside the same steps as they are", graphs, 12),
    Check("cut-again", "a run whose memory ends", cut_again, 8),
    Check("fp16", "steps with the loss scale, as on a T4", half_precision, 8),
    Check("estimate", "the estimate beside the peak", estimate, 20),
    Check("attention", "attention's backends in shapes that are new", attention, 8),
    Check("ways", "attention by the bounds of sequences beside padded rows", ways, 4),
    Check("peers", "chat beside SFTTrainer with packing and Liger's kernels", peers, 60, ("trl",), False),
    Check("compile", "compiled layers beside plain ones", compiled, 50),
    Check("start", "seconds until the first step of a run is logged", start, 35),
    Check("flex", "FlexAttention, which is compiled, beside padded rows", flex, 70, (), False),
    Check("qlora", "peak of LoRA beside 8B weights in 4 bits on a card of 10 GB", qlora, 90, ("bitsandbytes",), False),
)
