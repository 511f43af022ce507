"""Let fairseq load the dictionaries of its masked language models (``translation_from_pretrained_xlm``).

Since 0.12.3 ``Dictionary.load`` gives the constructor an option that the one of these classes does not know.
"""

from typing import Any, Type

from fairseq.data.legacy.masked_lm_dictionary import MaskedLMDictionary


def _load(cls: Type[MaskedLMDictionary], file: Any, **_: Any) -> MaskedLMDictionary:
    dictionary = cls()
    dictionary.add_from_file(file)
    return dictionary


def load_masked_lm_dictionaries() -> None:
    """Replace ``MaskedLMDictionary.load`` by that of fairseq 0.12.2."""
    MaskedLMDictionary.load = classmethod(_load)
