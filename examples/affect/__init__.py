"""Sentiment of spoken utterances: CMU-MOSI at utterance level."""
