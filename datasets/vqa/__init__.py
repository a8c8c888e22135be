"""VQA-v2 and sets in its layout: answers to questions about images."""
