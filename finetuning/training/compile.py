"""Layers that torch.compile made faster: compiled once, before the first step, for micro-batches of every shape."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from exceptions import SettingsError
from finetuning.config.schema import Settings
from finetuning.windows.layouts import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_VARIANTS = 64  # layers of a model that differ by a number or by what they are given each have code of their own


# Operations of matrix products in all steps; a quarter of an hour of two cores. Compiling took 15 to 25 seconds.
# It saved 8% of SmolLM2's time there; of one core's CPU time 14%, of GPT-2's 5%, of GPT-NeoX's 4%, of BERT's nothing.
_WORTH_IT = 2e14


def is_worth_compiling(settings: Settings, model: PreTrainedModel, precision: str, layout: Layout, tokens: int) -> bool:
    """Return what `training.torch_compile` says, or else whether compiling was measured to pay in a run of this length.

    It pays for causal models in one row on a CPU in bfloat16, and not for encoders. GPUs were not measured.

    Args:
        settings: The settings of the run.
        model: The model.
        precision: Autocast's precision.
        layout: How the windows of the run are laid out.
        tokens: Real tokens of all epochs.
    """
    asked = settings.training.torch_compile
    if asked is not None:
        return asked
    measured = layout.name == "one row" and model.device.type == "cpu" and precision == "bf16"
    is_plain = settings.model.adapter.method == "none" and settings.model.quantization is None
    weights = sum(parameter.numel() for layer in _layers(model) for parameter in layer.parameters())
    return measured and is_plain and 6 * weights * tokens >= _WORTH_IT


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


class CompiledLayers:
    """A model's layers with compiled code beside their own, which only training uses.

    Evaluation and generation compute as ever, and what is saved is the model alone. SettingsError where the model's
    layers are not of transformers' common kind.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.layers = _layers(model)
        if not self.layers:
            raise SettingsError(
                "이 모델에는 컴파일할 층이 없습니다.",
                where="training.torch_compile: true",
                remedy="training.torch_compile을 false로 두세요.",
            )
        self._forwards = [torch.compile(layer.forward, dynamic=True) for layer in self.layers]

    def compile(self, step: Callable[[], object]) -> None:
        """Compiles by running a step, which must be the same one in every run of these settings.

        The code that comes out depends on the sizes that it was compiled at. SettingsError where it cannot be made.
        """
        import torch._dynamo
        import torch._functorch.config
        import torch._inductor.config
        import torch.fx.experimental._config as shapes

        began = time.perf_counter()
        limits = torch._dynamo.config.patch(recompile_limit=_VARIANTS)
        # sizes that happen to be equal need not be so
        sizes = shapes.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        # code of another run's sizes is not taken for this one's; no process outlives the compilation; dropout is drawn
        # as ever, which on a CPU is faster than what is compiled for it
        caches = torch._functorch.config.patch(enable_autograd_cache=False)
        code = torch._inductor.config.patch(fx_graph_cache=False, compile_threads=1, fallback_random=True)
        try:
            with limits, sizes, caches, code, self._in_place():
                step()
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(getattr(error, "inner_exception", error)).strip().splitlines()
            raise SettingsError(
                f"모델의 층을 컴파일하지 못했습니다: {reason[0] if reason else type(error).__name__}",
                where="training.torch_compile: true",
                remedy="CPU에는 g++, GPU에는 Triton이 필요합니다. 없으면 training.torch_compile을 false로 두세요.",
            ) from error
        seconds = time.perf_counter() - began
        _log.info("층 %d개를 컴파일했습니다(%.0f초). 학습 중에는 다시 컴파일하지 않습니다.", len(self.layers), seconds)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Lets layers compute by their compiled code; by their own where it does not hold for what they are given.

        Compiling for that would make a resumed run's code depend on where it was resumed.
        """
        with self._in_place(), torch.compiler.set_stance("eager_on_recompile"):
            yield

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        for layer, forward in zip(self.layers, self._forwards, strict=True):
            vars(layer)["forward"] = forward
        try:
            yield
        finally:
            for layer in self.layers:
                del vars(layer)["forward"]
