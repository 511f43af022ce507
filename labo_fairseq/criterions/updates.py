"""Which optimizer update is a criterion computing the loss of?"""

from functools import wraps
from typing import Any, Callable

import torch
from torch import Tensor


class UpdateCounter:
    """Number of optimizer updates made before the current one, as the trainer knows it.

    fairseq tells a criterion nothing about updates, but its trainer calls ``task.train_step`` once for every
    micro-batch with ``update_num``, which it restores from a checkpoint and which every worker shares. The
    counter listens there, on this task object alone, so it needs no state of its own.

    Args:
        watch: given the loss of every micro-batch before the optimizer sees its gradient.
    """

    def __init__(self, task: Any, watch: Callable[[Tensor], None]) -> None:
        #: None until the first training step: a model that is only evaluated
        self.num_updates = None
        train_step = task.train_step

        @wraps(train_step)
        def counted(sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, **kwargs: Any) -> Any:
            self.num_updates = update_num
            done = train_step(
                sample=sample, model=model, criterion=criterion, optimizer=optimizer, update_num=update_num, **kwargs
            )
            # after the backward pass: a GPU has both in its queue while this waits for the value
            watch(torch.as_tensor(done[0]))  # tasks that make several losses in a step return the number of their sum
            return done

        task.train_step = counted
