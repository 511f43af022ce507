"""A run's model in this process, told the right translation token by token (teacher forcing)."""

import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
from fairseq import checkpoint_utils
from torch import Tensor
from tqdm import tqdm

from .. import criterions  # noqa: F401  a checkpoint may name them
from ..analysis.predictions import Predictions, predictions
from ..checkpoints import load_checkpoint
from ..data.types import Pair
from ..errors import UserError
from ..experiments.run import Run
from ..mending.loading import load_to_cpu

_TOKENS = 4096  # of a batch, padding included


def checkpoint_of(run: Run) -> Path:
    """The checkpoint that ``run`` is scored with.

    Raises:
        UserError: it is gone.
    """
    if not run.checkpoint.exists():
        raise UserError(f"{run.checkpoint} is not there")
    return run.checkpoint


class TeacherForcedModel:
    """The model that a run is scored with; on the first GPU, or on the CPU where there is none."""

    def __init__(self, run: Run, direction: Pair) -> None:
        load_checkpoint(checkpoint_of(run))  # says in one line what is wrong with it
        options = {"data": str(run.data.binarised), "source_lang": direction[0], "target_lang": direction[1]}
        path = str(checkpoint_of(run))
        (model,), _, self.task = checkpoint_utils.load_model_ensemble_and_task(
            [path], options, state=load_to_cpu(path, options)
        )
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.eval().to(self.device)

    @property
    def symbols(self) -> List[str]:
        """The K tokens of the vocabulary."""
        return self.task.target_dictionary.symbols

    def predictions(self, pairs: Sequence[Pair], what: str) -> List[Predictions]:
        """What the model says of every token of the second sides of ``pairs``, lines of subwords, and of ``</s>``."""
        found: Dict[int, Predictions] = {}
        with tqdm(total=len(pairs), desc=what, unit=" sentences") as bar:
            for batch in _batches(pairs):
                for index, (logits, target) in zip(batch, self.logits([pairs[index] for index in batch])):
                    found[index] = predictions(logits, target)
                bar.update(len(batch))
        return [found[index] for index in range(len(pairs))]

    @torch.no_grad()
    def logits(self, pairs: Sequence[Pair]) -> Iterator[Tuple[Tensor, Tensor]]:
        """For each pair the logits (T, K) of its second side and of ``</s>``, and these tokens (T,), int64."""
        sources = [self._encode(self.task.source_dictionary, source) for source, _ in pairs]
        targets = [self._encode(self.task.target_dictionary, target) for _, target in pairs]
        # fairseq's own data set, for it knows where a model wants its padding and the names of languages
        dataset = self.task.build_dataset_for_inference(sources, [len(source) for source in sources])
        batch = dataset.collater([dataset[index] for index in range(len(pairs))])
        # sorted by length, as recurrent models need them
        order = batch["id"].tolist()
        pad, end = self.task.target_dictionary.pad(), self.task.target_dictionary.eos()
        before = torch.full((len(pairs), max(map(len, targets))), pad)
        for row, index in enumerate(order):
            target = targets[index]
            before[row, : len(target)] = torch.cat([torch.tensor([end]), target[:-1]])
        inputs = {name: value.to(self.device) for name, value in batch["net_input"].items() if torch.is_tensor(value)}
        inputs["prev_output_tokens"] = before.to(self.device)
        with warnings.catch_warnings():
            # torch 2 about the masks of fairseq's attention
            warnings.filterwarnings("ignore", "Support for mismatched")
            output = self.model(**inputs)[0]
        rows = {index: output[row, : len(targets[index])] for row, index in enumerate(order)}
        return ((rows[index], target.to(self.device)) for index, target in enumerate(targets))

    def _encode(self, dictionary: Any, line: str) -> Tensor:
        return dictionary.encode_line(line, add_if_not_exist=False).long()


def _batches(pairs: Sequence[Pair]) -> Iterator[List[int]]:
    """Indices of pairs of about the same length, at most ``_TOKENS`` with their padding, or one pair."""
    lengths = [1 + max(len(side.split()) for side in pair) for pair in pairs]
    batch: List[int] = []
    for index in sorted(range(len(pairs)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > _TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
