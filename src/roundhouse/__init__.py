"""Roundhouse: one GPU, many models, every OpenAI client.

The subpackages live in the folders of the same name at the top of the repository; the links
beside this file put them into one import package, alike for the wheel, an editable install,
type checkers and editors.
"""

__version__ = "0.1.0"
