"""Affect: the sentiment of spoken utterances from text, audio and vision."""
