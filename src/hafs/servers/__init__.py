"""Everything behind an address: the one way to ask OpenAI's and Anthropic's interfaces, which Ollama, vLLM, llama.cpp,
LM Studio and `hafs serve` speak, too. Generation, judging and rollouts use it.

`client` says what asking is; `openai`, `anthropic` and `ollama` do it, `batch` for many at half price; `abilities`
finds out what an endpoint takes, `limits` how fast it may be asked, `address` whose key goes where, `transport` what of
a reply is taken in at all, `errors` what can go wrong.
"""
