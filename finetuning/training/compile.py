"""Compile a model's layers with torch.compile: once, before the first step, for micro-batches of every shape."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from exceptions import SettingsError, first_line_of
from finetuning.config.schema import Settings
from finetuning.ops.replaced import computing_by
from finetuning.windows.layouts import Layout, OneRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_VARIANTS = 64  # recompilations allowed: layers that differ by a constant or in their arguments are compiled separately

# Floating-point operations of a run's matrix products from which compiling pays: a quarter of an hour of two cores.
# Measured there: compiling took 15 to 25 seconds and saved 8% of SmolLM2's time. On one core it saved 14% of SmolLM2's
# CPU time, 5% of GPT-2's, 4% of GPT-NeoX's, and none of BERT's.
_WORTH_IT = 2e14


def is_worth_compiling(settings: Settings, model: PreTrainedModel, precision: str, layout: Layout, tokens: int) -> bool:
    """Return whether to compile the layers: `training.torch_compile` if it is set, else whether it pays.

    Measurements show that it pays for causal models in the layout of one row on a CPU in bfloat16, and not for
    encoders. GPUs were not measured.

    Args:
        settings: The settings of the run.
        model: The model.
        precision: Autocast's precision.
        layout: Layout of the run's windows.
        tokens: Real tokens of all epochs.

    Returns:
        Whether to compile.
    """
    asked = settings.training.torch_compile
    if asked is not None:
        return asked
    measured = isinstance(layout, OneRow) and model.device.type == "cpu" and precision == "bf16"
    is_plain = settings.model.adapter.method == "none" and settings.model.quantization is None
    weights = sum(parameter.numel() for layer in _layers(model) for parameter in layer.parameters())
    return measured and is_plain and 6 * weights * tokens >= _WORTH_IT


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


class CompiledLayers:
    """A model's layers with compiled forward functions, which only training uses.

    Evaluation and generation run the layers uncompiled, and a saved model holds nothing of the compiled code.

    Sizes are dynamic from the start, so that one code serves every shape. (CUDA graphs need shapes that repeat, and
    those of micro-batches do not.) Where the code does not hold, such as for a row of one sequence, a layer's Python
    code runs instead, and is counted; where a layer is split, its later parts are not.

    Args:
        model: The model.

    Attributes:
        graphs: Number of graphs that were compiled: one for each kind of layer, and more where a layer is split.
        graph_breaks: How often the code of a layer or of its parts was split, so that Python runs in between.

    Raises:
        SettingsError: No layer of the model is a GradientCheckpointingLayer of transformers.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.layers = _layers(model)
        if not self.layers:
            raise SettingsError(
                "이 모델에는 컴파일할 층이 없습니다.",
                where="training.torch_compile: true",
                remedy="training.torch_compile을 false로 두세요.",
            )
        self.graphs = self.graph_breaks = self._uncompiled = 0
        kinds = {type(layer): self._counted(type(layer).forward) for layer in self.layers}
        self._forwards = {
            layer: torch.compile(MethodType(kinds[type(layer)], layer), dynamic=True) for layer in self.layers
        }

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a layer's forward function that counts its calls, but for those of compiled code."""

        def forward(layer: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():  # a constant of the compiled code, which leaves the count out
                self._uncompiled += 1
            return original(layer, *args, **kwargs)

        return forward

    def take_uncompiled(self) -> int:
        """Return how often a layer ran uncompiled since the last call."""
        count, self._uncompiled = self._uncompiled, 0
        return count

    def compile(self, step: Callable[[], object]) -> None:
        """Compile the layers by running a step.

        Args:
            step: Runs the model forward and backward. It must be the same in every run of these settings, since the
                compiled code depends on the sizes that it saw.

        Raises:
            SettingsError: Compilation failed.
        """
        import torch._dynamo
        import torch._dynamo.utils
        import torch._functorch.config
        import torch._inductor.config
        import torch.fx.experimental._config as shapes

        began, counters = time.perf_counter(), torch._dynamo.utils.counters
        graphs_before, breaks_before = counters["stats"]["unique_graphs"], Counter(counters["graph_break"])
        limits = torch._dynamo.config.patch(recompile_limit=_VARIANTS)
        # do not assume that sizes that are equal in this step are always equal
        sizes = shapes.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        # no cached code of another run, which saw other sizes; no compiler processes left running; dropout by torch's
        # own generator, which is faster on a CPU than the compiled one
        caches = torch._functorch.config.patch(enable_autograd_cache=False)
        code = torch._inductor.config.patch(fx_graph_cache=False, compile_threads=1, fallback_random=True)
        try:
            with limits, sizes, caches, code, computing_by(self._forwards):
                step()
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = first_line_of(getattr(error, "inner_exception", error))
            raise SettingsError(
                f"모델의 층을 컴파일하지 못했습니다: {reason}",
                where="training.torch_compile: true",
                remedy="CPU에는 g++, GPU에는 Triton이 필요합니다. 없으면 training.torch_compile을 false로 두세요.",
            ) from error
        seconds, self.graphs = time.perf_counter() - began, counters["stats"]["unique_graphs"] - graphs_before
        breaks = Counter(counters["graph_break"]) - breaks_before
        self.graph_breaks = breaks.total()
        _log.info(
            "층 %d개를 컴파일했습니다(그래프 %d개, %.0f초). 학습 중에는 다시 컴파일하지 않습니다.",
            len(self.layers), self.graphs, seconds,
        )  # fmt: skip
        self._tell_what_is_not_compiled(breaks)

    def _tell_what_is_not_compiled(self, breaks: Counter[str]) -> None:
        """Log how often layers are split, with the most frequent reason, and whether layers ran uncompiled."""
        for reason, _ in breaks.most_common(1):
            _log.warning(
                "층의 코드가 컴파일할 수 없는 곳에서 %d번 나뉘었습니다(graph break). "
                "그 부분은 컴파일하지 않고 실행합니다. 이유: %s",
                self.graph_breaks, next(iter(reason.strip().splitlines()), "?"),
            )  # fmt: skip
        uncompiled = self.take_uncompiled()
        if uncompiled:
            _log.warning(
                "컴파일하지 못해 원래 코드로 계산한 층이 있습니다(%d번). "
                "빨라지지 않으면 training.torch_compile을 false로 두세요.",
                uncompiled,
            )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the compiled layers inside the block; fall back to a layer's Python code where a guard fails.

        Recompiling there would make the code of a resumed run depend on the step that it was resumed at.
        """
        with computing_by(self._forwards), torch.compiler.set_stance("eager_on_recompile"):
            yield
