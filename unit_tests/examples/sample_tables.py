"""A table with every kind of cell, and one that is published, for tests."""

from deq_fusion.examples.studies.published_tables import Published
from deq_fusion.examples.studies.tables import Bounded, Column, Interval, Spread, Table

COMMIT = "0123456789" * 4


def small(name="small", **changes):
    """A table with every kind of cell."""
    columns = [
        Column("injection"),
        Column("row"),
        Column("accuracy", ".1%"),
        Column("runs", ",.0f"),
    ]
    columns += [Column("interval", ".1%"), Column("minus full", "+.3f"), Column("p", "p")]
    columns += [Column("change", ".1e", "less"), Column("gate")]
    rows = [
        ["raw", "full", Spread(0.774, 0.032), 1234, Interval(0.7, 0.8), None, None, 1.7e-8, "x"],
        ["raw", "no|gate", Spread(0.5), 6, None, Bounded(-0.027, -0.04, 0.01), 4e-4, 0.25, "-"],
        ["raw", "none", "failed", 6, None, Bounded(0.002), 0.0234, 3, None],
    ]
    return Table(**{"name": name, "columns": columns, "rows": rows, "keys": 2, **changes})


SHOWN = """\
| injection | row | accuracy % | runs | interval % | minus full | p | change (less) | gate |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| raw | full | 77.4 ± 3.2 | 1,234 | 70.0 to 80.0 |  |  | 1.7e-08 | x |
| raw | no\\|gate † | 50.0 | 6 |  | -0.027 [-0.040, +0.010] | < 0.001 | 2.5e-01 | - |
| raw | none | failed | 6 |  | +0.002 | 0.023 | 3.0e+00 |  |"""


def published(table=None, **changes):
    """A published table."""
    table = table or small()
    origin = {"commit": COMMIT, "date": "2026-01-31", "commands": ["make bench"]}
    origin |= {"versions": {"torch": "2.13"}, "machine": "one thread of a CPU"}
    told = {"name": table.name, "title": table.title, "table": table, **origin, **changes}
    return Published(**told)
