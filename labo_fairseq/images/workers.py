"""Several processes that train one network: together they compute what one process would, up to rounding.

Each process sends its share of a batch through the network. The logits are gathered, so that every process has the
loss, and the state of the method, of the whole batch; the gradients of the shares are added. Batch normalization takes
its statistics over the whole batch.
"""

import os
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, List, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Workers:
    """The processes of a training, and which of them this one is.

    Args:
        rank: of this process, from 0.
        number: of processes.
    """

    def __init__(self, rank: int = 0, number: int = 1) -> None:
        self.rank, self.number = rank, number

    def share(self, images: int) -> slice:
        """The positions in a batch of so many images that this process computes; none where they are too few."""
        sizes = self._sizes(images)
        first = sum(sizes[: self.rank])
        return slice(first, first + sizes[self.rank])

    def gather(self, share: Tensor, images: int) -> Tensor:
        """The rows of all processes for a batch of so many ``images``; the gradient reaches this process's own.

        Args:
            share: (n, ...), the rows of :meth:`share`.
        """
        if self.number == 1:
            return share
        sizes = self._sizes(images)
        # gloo and NCCL gather tensors of one shape
        own = share.detach().new_zeros((max(sizes), *share.shape[1:]))
        own[: len(share)] = share.detach()
        rows = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(rows, own)
        parts = [part[:size] for part, size in zip(rows, sizes)]
        parts[self.rank] = share
        return torch.cat(parts)

    @torch.no_grad()
    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Add the gradients that the shares of a batch have given ``weights``."""
        if self.number == 1:
            return
        trained = [weight for weight in weights if weight.requires_grad]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
        # a weight that no process has used has none, and so is not decayed either
        used = torch.tensor([float(weight.grad is not None) for weight in trained]).to(gradients[0])
        total = torch.cat([gradient.flatten() for gradient in gradients] + [used])
        dist.all_reduce(total)
        sums = total.split([gradient.numel() for gradient in gradients] + [len(used)])
        for weight, gradient, some in zip(trained, sums, sums[-1].tolist()):
            weight.grad = gradient.view_as(weight) if some else None

    def largest(self, value: int, device: torch.device) -> int:
        """The largest of the processes' values."""
        return int(self.gather(torch.tensor([value], device=device), self.number).max())

    def synchronize(self, module: nn.Module) -> nn.Module:
        """``module``, its batch normalization replaced by one over all processes, with the same state."""
        if self.number == 1:
            return module
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            return SharedBatchNorm.of(module)
        for name, child in module.named_children():
            setattr(module, name, self.synchronize(child))
        return module

    def _sizes(self, images: int) -> List[int]:
        each, more = divmod(images, self.number)
        return [each + (rank < more) for rank in range(self.number)]


#: one process
ALONE = Workers()


@contextmanager
def join_workers(gpus: bool) -> Iterator[Tuple[Workers, torch.device]]:
    """The processes that torchrun has started, and the device of this one, connected until the block ends."""
    device = torch.device("cpu")
    if gpus:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum of the processes' tensors; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient.contiguous())


class SharedBatchNorm(_BatchNorm):
    """Batch normalization with the mean and variance of the images of all processes; :class:`torch.nn.SyncBatchNorm`
    is for GPUs alone."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> "SharedBatchNorm":
        """The same as ``norm``, whose parameters and buffers it shares."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = values.new_tensor([values.numel() / values.size(1)])
        sums = _Sum.apply(torch.cat([values.sum(axes), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = values - mean.view(shape)
        variance = _Sum.apply(centered.square().sum(axes)) / count
        if self.training and self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes, the channels second."""

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
