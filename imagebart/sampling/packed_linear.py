"""Linear layers with packed weights, most of all for a few rows at a time, where reading the weights takes the time.

PyTorch's own kernel takes two to four times as long for 2 to 16 rows as for one, because it reorders the weights in
every call, and is slow with hundreds of rows on some processors. Two others reorder them once: oneDNN in float32, and
FBGEMM with float16 weights and float32 inputs and sums (half the bytes), where all weights are float16 numbers, so that
none changes. One that PyTorch lacks is not used.

The order of weights decides how sums are rounded, so that a kernel is never chosen by time: the same seed has to give
the same image at every start. A row's result never depends on the rows beside it, since some of them are drafts.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.models.denoiser import Stage
from imagebart.models.transformer import Transformer

Matrix = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out]
Kernel = Callable[[nn.Linear], Matrix]
ROWS = 8  # for which oneDNN orders the weights
FP16_ROWS = 6  # of a block of FBGEMM's kernel
PASS_ROWS = 32  # tokens of all variants in a pass of the decoder: fewer take little less time, more drafts fail
FREE = 0.75  # processors a thread: with fewer that are free, a machine is busy
READING = 0.25  # seconds at least between readings of what other processes use
STAT = Path("/proc/stat")
LARGE = 2**22  # depth times squared width of a decoder, from which all threads are worth it on a busy machine, too


def fp32(linear: nn.Linear) -> Matrix:
    """oneDNN, float32 on a CPU. A row's result does not depend on how many rows there are."""
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().float(), ROWS)
    bias, multiply = linear.bias, torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, weight, bias, "none", [], "")


def fp16(linear: nn.Linear) -> Matrix:
    """FBGEMM, weights as float16, everything else float32 on a CPU."""
    weight = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().float(), linear.bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16

    def apply(x: Tensor) -> Tensor:
        rows = len(x)
        rest = rows % FP16_ROWS  # for one or two left over the kernel adds in another order
        if rest not in (1, 2):
            return multiply(x, weight)
        return multiply(F.pad(x, (0, 0, 0, 3 - rest)), weight)[:rows]

    return apply


def packable(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a network that are worth packing, by name.

    Of a stage those of its decoder are: the rest runs once a step, and takes less time than to pack it.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    if not isinstance(network, Stage):
        return layers
    return {name: layer for name, layer in layers.items() if name.startswith("decoder.") and not name.endswith(".kv")}


def best_kernel(network: nn.Module) -> Kernel | None:
    """The fastest kernel that changes none of the weights to pack; None: PyTorch's own, also on other devices."""
    weights = [layer.weight for layer in packable(network).values()]
    first = next(network.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32:
        return None
    exact_in_fp16 = all(torch.equal(weight.float(), weight.half().float()) for weight in weights)
    if exact_in_fp16 and "fbgemm" in torch.backends.quantized.supported_engines:
        return fp16
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return fp32 if has_onednn else None


class PackedLinear(nn.Module):
    def __init__(self, linear: nn.Linear, kernel: Kernel) -> None:
        super().__init__()
        self.weight, self.multiply = linear.weight, kernel(linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x.flatten(0, -2)).view(*x.shape[:-1], -1)


Network = TypeVar("Network", bound=nn.Module)


def with_kernel(network: Network, kernel: Kernel) -> Network:
    """A copy of a network that computes with a kernel and shares all parameters."""
    copied = deepcopy(network, {id(shared): shared for shared in (*network.parameters(), *network.buffers())})
    for name, layer in packable(network).items():
        copied.set_submodule(name, PackedLinear(layer, kernel))
    return copied


class PackedNetwork:
    """The last network that was packed; packed again when another is asked for, or the weights have changed.

    Of a model of stages one at a time is in memory: packing takes less time than sampling. It is never copied or saved
    with the model.
    """

    def __init__(self) -> None:
        self._state: object = None
        self._packed: nn.Module | None = None

    def __reduce__(self) -> tuple[type["PackedNetwork"], tuple[()]]:
        return PackedNetwork, ()  # also of a copy

    @torch.no_grad()
    def __call__(self, network: Network) -> Network:
        state = [(weight.data_ptr(), weight._version) for weight in network.parameters()]
        if self._packed is None or self._state != state:
            self._packed = None  # its memory is freed before more is taken
            kernel = best_kernel(network)
            self._state, self._packed = state, network if kernel is None else with_kernel(network, kernel)
        return self._packed  # type: ignore[return-value]


class FreeProcessors:
    """How many of this machine's processors other processes left free between the last two readings; all, where the
    system does not say (it does on Linux). Own runs do not count, as they would in the load average.
    """

    def __init__(self) -> None:
        self.processors = os.cpu_count() or 1
        self.free, self.last = float(self.processors), self._read()

    def __call__(self) -> float:
        if time.perf_counter() - self.last[0] > READING:
            now = self._read()
            seconds, used, own = (after - before for after, before in zip(now, self.last, strict=True))
            self.free, self.last = self.processors - (used - own) / seconds, now
        return self.free

    def _read(self) -> tuple[float, float, float]:
        """Seconds: now, used of all processors, used by this process."""
        own, used = time.process_time(), 0.0
        if STAT.exists():
            user, nice, system, _, _, interrupts, soft_interrupts, *_ = map(int, STAT.read_text().split()[1:9])
            used = (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), used, own


free_processors = FreeProcessors()


@contextmanager
def threads_for(decoder: Transformer) -> Iterator[None]:
    """Computes a decoder's pass on all threads, or a small one's on one where the machine is busy, as short passes wait
    for each other there three times as long as one thread takes alone. They share out columns, which changes no sum.
    """
    threads = torch.get_num_threads()
    if decoder.config.depth * decoder.config.width**2 < LARGE and free_processors() < FREE * threads:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
