# Runs test targets of cargo side by side, of each one test at a time; `make e2e` says which, and how many. Most of their time they wait for a
# time-out to pass. More than a few would starve the broker that shares the processors with them, and a starved broker fences itself.
#
# What a target prints comes in one piece when it has ended.

TARGETS := $(MAKECMDGOALS)

.PHONY: $(TARGETS)
$(TARGETS):
	cargo test $(CARGO_FLAGS) --test $@ -- --test-threads=1 $(TEST)
