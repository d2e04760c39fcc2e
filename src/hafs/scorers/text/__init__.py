"""Scores prose by what can be measured: perplexity, length, repetition, format, language.

    text                                        repetition alone
    text:min_words=20,max_words=200             and a length band
    text:model=default                          and perplexity under a model
    text:language=en                            and the language
    text:regex=^\\d+$                           and a pattern that must be found
    text:json                                   and that it is JSON

A prompt may ask for more: `check` may hold the same keys and "schema" (a JSON schema). Each part gives a number from 0
to 1 (`measures.py`); the value is their mean, and `passed` says whether the yes-or-no parts all hold.
"""

from hafs.scorers.text.scorer import TextScorer

__all__ = ["TextScorer"]
