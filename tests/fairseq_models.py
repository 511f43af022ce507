"""fairseq's objects in this process, as fairseq-train makes them; two fixtures, task and batch, are in conftest.py."""

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf


def configuration(data, *arguments):
    """What fairseq-train makes of its options; these are the model's."""
    arguments = [str(data.binarized), "--optimizer", "adam", *arguments]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))


def task_of(config):
    """The task with its validation set."""
    task = tasks.setup_task(config.task)
    task.load_dataset("valid")
    return task


def model_of(task, config, seed=0):
    torch.manual_seed(seed)
    return task.build_model(config.model)


def gradients(model, loss):
    """Of all parameters that have one: fairseq 0.12's encoder has some that it uses in evaluation alone."""
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
