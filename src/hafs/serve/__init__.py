"""An OpenAI-compatible endpoint for one model: batching.py puts requests that wait together into one batch of the
transformers backend, protocol.py reads requests and writes replies, app.py is the web application.

It is for trying a model and for judging with it on this machine, not for the open network.
"""
