"""The LLM judge: asked in both orders, under a budget, calibrated on people's labels."""
