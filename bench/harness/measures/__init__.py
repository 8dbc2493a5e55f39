"""What is measured. Each module holds `cases(settings)`, the names of its cases (`[""]` for one without a name), and `measure(bench, cell)`,
which returns what is kept of a run."""

from . import cold, drain, growth, idle, latency, restore, snapshots, timeline

# In the order in which they are run: `snapshots` wants to know how fast a drain is.
ALL = {"drain": drain, "latency": latency, "snapshots": snapshots, "restore": restore, "timeline": timeline, "idle": idle,
       "cold": cold, "growth": growth}
