"""From pictures to captions: a provider says what is to be seen, code writes the caption from it.

What a provider gives are fields (`fields`), kept by picture, prompt and model (`cache`); the caption is rendered
from them (`rendering`), so another trigger or style tail asks nobody again.
"""
