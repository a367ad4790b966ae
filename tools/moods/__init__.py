"""A class LM for the moods of tinytales: its data, a smaller base, texts that no model was trained on, and the comparison."""
