"""Let fairseq's task translation_from_pretrained_bart find its options.

It asks for them under ``args``, the name of older tasks, which its base class no longer sets: every command that loads
a data set with it fails with AttributeError.
"""

from typing import Any

from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask


def name_options_of_pretrained_bart() -> None:
    """Add the attribute."""
    TranslationFromPretrainedBARTTask.args = property(_options)


def _options(task: Any) -> Any:
    return task.cfg
