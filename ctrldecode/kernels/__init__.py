"""Array in, array out: the compiled inner loops. No classes, files, tokenizers or models in here."""
