"""Visual question answering: VQA-v2, and sets in its layout."""
