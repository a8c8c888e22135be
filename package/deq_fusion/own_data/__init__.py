"""One's own data: tables read and joined, split honestly, and compared in one call.

`compare_data` is that call, `command.main` the command line of it, and `own_data` what both build
on: arrays, frames or files -> what was understood, and the recipe of a comparison.
"""

from .call import compare_data as compare_data
from .recipe import OwnData as OwnData
from .recipe import own_data as own_data
