"""A trained model as files that others take: safetensors, adapter, GGUF, Ollama, each with a model card.

merge.py puts an adapter into its base (a 4-bit base included), gguf.py writes GGUF files through llama.cpp's converter
and quantises them, modelfile.py writes what Ollama reads, card.py the model card, llamacpp.py runs an exported file and
proves that it reads text as the training tokenizer does. write.py puts them together.
"""

from hafs.export.write import FORMATS, Exported, export_model

__all__ = ["FORMATS", "Exported", "export_model"]
