# Runs test targets of cargo side by side, of each one test at a time; the Makefile says which, and how many. Most of their time they wait for
# a time-out to pass. More than a few would starve the broker that shares the processors with them, and a starved broker fences itself.
#
# What a target prints comes in one piece when it has ended.

TARGETS := $(filter-out unit sim,$(MAKECMDGOALS))

# The longest takes a few minutes. One that hangs is ended, so that it is known which one, instead of nothing about any.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := timeout --foreground --verbose 30m

.PHONY: $(TARGETS)
$(TARGETS):
	cargo test $(CARGO_FLAGS) --test $@ -- --test-threads=1 $(TEST)

# These need no servers but much processor time, and no test among them waits for another process.
.PHONY: unit sim
unit:
	nice -n 19 make -f Makefile --no-print-directory unit UNIT_TESTS='$(WITHOUT_SIM)' TEST='$(TEST)'

sim:
	nice -n 19 make -f Makefile --no-print-directory sim TEST='$(TEST)'
