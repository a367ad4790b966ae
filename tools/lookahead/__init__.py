"""How much lookahead helps: texts forced to contain words, weighed by the language model. Run from the checkout's root."""
