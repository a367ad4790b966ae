"""The embedded model tinytales: how its corpus, tokenizer and weights are made; knows nothing of ctrldecode."""
