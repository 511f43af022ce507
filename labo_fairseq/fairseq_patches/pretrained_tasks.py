"""Let fairseq's tasks that begin with a pretrained model load their data.

``translation_from_pretrained_xlm``: since 0.12.3 ``Dictionary.load`` gives the constructor an option that the
dictionary of masked language models does not know.

``translation_from_pretrained_bart`` asks for its options under ``args``, the name of older tasks, which its base class
no longer sets: every command that loads a data set with it fails with AttributeError.
"""

from typing import Any, Type

from fairseq.data.legacy.masked_lm_dictionary import MaskedLMDictionary
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask


def _load(cls: Type[MaskedLMDictionary], file: Any, **_: Any) -> MaskedLMDictionary:
    dictionary = cls()
    dictionary.add_from_file(file)
    return dictionary


def _options(task: Any) -> Any:
    return task.cfg


def load_pretrained_tasks() -> None:
    """Replace ``MaskedLMDictionary.load`` by that of fairseq 0.12.2, and name the options of the task for BART."""
    MaskedLMDictionary.load = classmethod(_load)
    TranslationFromPretrainedBARTTask.args = property(_options)
