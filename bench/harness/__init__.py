"""The bench's own parts: places, servers, contestants, measures, reports. `bench.py` beside this folder is the way in."""
