"""The centre: potentials and their algebra, the vocabulary, and the laws that potentials obey."""
