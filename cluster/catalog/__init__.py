"""What hardware can do and what it costs: facts from two CSV tables, each row with its source. Nothing is read at
import; `Catalog.load()` reads.
"""

from .catalog import Catalog, Price, on_spot, priced
from .tables import InstanceType

__all__ = ["Catalog", "InstanceType", "Price", "on_spot", "priced"]
