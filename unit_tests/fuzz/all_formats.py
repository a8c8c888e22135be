"""All formats that are fuzzed, by name."""

from . import format_affect, format_brca, format_imdb, format_own, format_tcga, format_vqa
from .formats import Format

MODULES = (format_brca, format_imdb, format_affect, format_vqa, format_tcga, format_own)
FORMATS: dict[str, Format] = {made.name: made for module in MODULES for made in module.FORMATS}
