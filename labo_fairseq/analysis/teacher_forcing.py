"""A run's model in this process, told the reference translation token by token (teacher forcing)."""

import sys
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoints import load_checkpoint
from ..data.types import Pair
from ..evaluation.runs import Run
from ..files import read_lines
from .hypotheses import HeldOut

Result = TypeVar("Result")

_TOKENS = 4096  # of a batch, padding included


def reference_pairs(run: Run, test: HeldOut) -> List[Pair]:
    """Subwords of every source sentence of a test set and of its reference."""
    source, target = (read_lines(run.data.subwords(test.name, side)) for side in test.direction)
    return list(zip(source, target))


class TeacherForcedModel:
    """The model that a run is scored with; on the first GPU, or on the CPU where there is none."""

    def __init__(self, run: Run, direction: Pair) -> None:
        # seconds, which the help of a command is not worth
        from fairseq import checkpoint_utils

        from .. import criterions  # noqa: F401  a checkpoint may name them
        from ..criterions.posterior import log_posterior_of
        from ..fairseq_patches.safe_checkpoint_loading import load_to_cpu

        path = str(run.existing_checkpoint())
        state = load_checkpoint(run.checkpoint)  # says in one line what is wrong with it
        options = {"data": str(run.data.binarized), "source_lang": direction[0], "target_lang": direction[1]}
        (model,), config, self.task = checkpoint_utils.load_model_ensemble_and_task(
            [path], options, state=load_to_cpu(path, options)
        )
        updates = (state.get("optimizer_history") or [{"num_updates": sys.maxsize}])[-1]["num_updates"]
        #: logits → log-probabilities that invert the training objective, see log_posterior_of
        self.log_posterior = log_posterior_of(config.criterion, updates)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.eval().to(self.device)

    @property
    def symbols(self) -> List[str]:
        """The K tokens of the vocabulary."""
        return self.task.target_dictionary.symbols

    def map(self, pairs: Sequence[Pair], function: Callable[[Tensor, Tensor], Result], what: str) -> List[Result]:
        """``function(logits, target)`` of every pair, see :meth:`logits`, in their order.

        Args:
            what: is done, for the progress bar.
        """
        results: Dict[int, Result] = {}
        with tqdm(total=len(pairs), desc=what, unit=" sentences") as bar:
            for batch in _batches(pairs):
                for index, (logits, target) in zip(batch, self.logits([pairs[index] for index in batch])):
                    results[index] = function(logits, target)
                bar.update(len(batch))
        return [results[index] for index in range(len(pairs))]

    def batches(self, pairs: Sequence[Pair], what: str) -> Iterator[Tuple[Tensor, Tensor]]:
        """Logits (N, K) and tokens (N,) of all pairs, a batch at a time, in no particular order."""
        for batch in tqdm(list(_batches(pairs)), desc=what, unit=" batches"):
            logits, targets = zip(*self.logits([pairs[index] for index in batch]))
            yield torch.cat(logits), torch.cat(targets)

    @torch.no_grad()
    def logits(self, pairs: Sequence[Pair]) -> Iterator[Tuple[Tensor, Tensor]]:
        """For each pair the logits (T, K) of its second side and of ``</s>``, and these tokens (T,), int64."""
        batch = self.source_batch([source for source, _ in pairs])
        targets = [self._encode(self.task.target_dictionary, target) for _, target in pairs]
        order = batch["id"].tolist()
        pad, end = self.task.target_dictionary.pad(), self.task.target_dictionary.eos()
        before = torch.full((len(pairs), max(map(len, targets))), pad)
        for row, index in enumerate(order):
            target = targets[index]
            before[row, : len(target)] = torch.cat([torch.tensor([end]), target[:-1]])
        inputs = batch["net_input"]
        inputs["prev_output_tokens"] = before.to(self.device)
        with warnings.catch_warnings():
            # torch 2 about the masks of fairseq's attention
            warnings.filterwarnings("ignore", "Support for mismatched")
            output = self.model(**inputs)[0]
        rows = {index: output[row, : len(targets[index])] for row, index in enumerate(order)}
        return ((rows[index], target.to(self.device)) for index, target in enumerate(targets))

    def source_batch(self, sources: Sequence[str]) -> Dict[str, Any]:
        """What fairseq makes of source sentences (subwords): ``id``, their order, and ``net_input`` on the device."""
        encoded = [self._encode(self.task.source_dictionary, source) for source in sources]
        # fairseq's own data set, for it knows where a model wants its padding and the names of languages; it sorts
        # by length, as recurrent models need them
        dataset = self.task.build_dataset_for_inference(encoded, [len(source) for source in encoded])
        batch = dataset.collater([dataset[index] for index in range(len(sources))])
        inputs = batch["net_input"].items()
        return {**batch, "net_input": {name: value.to(self.device) for name, value in inputs if torch.is_tensor(value)}}

    def _encode(self, dictionary: Any, line: str) -> Tensor:
        return dictionary.encode_line(line, add_if_not_exist=False).long()


def _batches(pairs: Sequence[Pair]) -> Iterator[List[int]]:
    return batches_by_length([max(len(side.split()) for side in pair) for pair in pairs])


def batches_by_length(words: Sequence[int], most: Optional[int] = None) -> Iterator[List[int]]:
    """Indices of sentences of about the same length, at most ``most`` and ``_TOKENS`` with their padding, or one.

    Args:
        words: of each sentence, whose tokens are one more.
    """
    batch: List[int] = []
    for index in sorted(range(len(words)), key=words.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * (1 + words[index]) > _TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
