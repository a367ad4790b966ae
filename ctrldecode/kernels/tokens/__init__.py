"""Kernels over tokens: the trie of a vocabulary, and packed masks."""
