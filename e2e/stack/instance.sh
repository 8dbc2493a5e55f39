# shellcheck shell=bash
#
# One server process with a folder of its own, or a few that are one server: pids, port, logs and locks. Sourced by `stack`;
# knows nothing about what the server is.
#
#   $STACK_RUN/KIND/NAME/pid    "PID STARTTIME"; the start time tells our process from a later one with the same number
#   $STACK_RUN/KIND/NAME/port   first port of its block; the reservation holds until the folder is removed
#   $STACK_RUN/KIND/NAME/log    of the current run; log.previous of the one before
#   $STACK_RUN/KIND/NAME/data   what outlives the process
#
# An instance of several processes has a folder node-1, node-2, ... for each, with a pid, log and data of its own.

# Each instance has this many ports in a row: SeaweedFS needs eight.
readonly PORTS_PER_INSTANCE=10
# Ports for instances other than `main`: below the range that Linux takes ports of outgoing connections from (32768).
readonly PORTS_FIRST=20000 PORTS_LAST=29990

instance_dir() { # KIND NAME
  [[ $2 =~ ^[a-z0-9][a-z0-9-]*$ ]] || fail "\`$2\` is no name for an instance: lower-case letters, digits and - only"
  printf '%s\n' "$STACK_RUN/$1/$2"
}

# Lines "KIND NAME" of all that exist, whether they run or not.
instance_list() {
  local kind dir
  for kind in "${KINDS[@]}"; do
    for dir in "$STACK_RUN/$kind"/*/; do
      if [ -d "$dir" ]; then echo "$kind $(basename "$dir")"; fi
    done
  done
}

# Makes the folder if there is none, and notes for `with` who made it and who starts it now.
instance_mark() { # DIR
  if [ ! -d "$1" ]; then
    mkdir -p "$1/data"
    echo "${FOREBAY_STACK_OWNER:-}" >"$1/made-by"
  fi
  echo "${FOREBAY_STACK_OWNER:-}" >"$1/started-by"
}

# The folders of its processes: its own, unless it has nodes.
instance_nodes() { # DIR
  if [ -d "$1/node-1" ]; then printf '%s\n' "$1"/node-*; else echo "$1"; fi
}

# Prints the pids of those of its processes that are alive; fails if none is.
instance_pids() { # DIR
  local node pid pids=()
  while read -r node; do
    if pid=$(instance_pid "$node"); then pids+=("$pid"); fi
  done < <(instance_nodes "$1")
  [ ${#pids[@]} -gt 0 ] && echo "${pids[*]}"
}

# Whether all of its processes are alive.
instance_runs() { # DIR
  local node
  while read -r node; do instance_pid "$node" >/dev/null || return 1; done < <(instance_nodes "$1")
}

# Prints the pid if the process that was started for this folder, an instance's or a node's, is alive.
instance_pid() { # DIR
  local pid started
  { read -r pid started <"$1/pid"; } 2>/dev/null || return 1
  [ -n "$started" ] && [ "$(process_started "$pid")" = "$started" ] || return 1
  echo "$pid"
}

# Prints when a process started, in clock ticks since boot; nothing if there is none or it is a zombie.
process_started() { # PID
  local stat fields
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
  # The second field is the program's name in brackets, and may itself contain blanks and brackets.
  read -ra fields <<<"${stat##*) }"
  [ "${fields[0]}" = Z ] || echo "${fields[19]}"
}

instance_port() { # DIR
  cat "$1/port" 2>/dev/null
}

# Writes DIR/port: the wanted one, else the one it had, else a free one. Call it with the lock of all ports held.
instance_reserve_port() { # DIR PORT|''
  local dir=$1 port=${2:-} attempt busy
  [ -n "$port" ] || port=$(instance_port "$dir" || true)
  if [ -n "$port" ]; then
    [[ $port =~ ^[0-9]+$ ]] || fail "\`$port\` is no port number"
    if busy=$(busy_port "$port"); then
      fail "port $busy is in use by another process, and $dir needs the ports $port to $((port + PORTS_PER_INSTANCE - 1)):" \
        "choose others with --port, or for \`main\` with FOREBAY_KAFKA_PORT, FOREBAY_KAFKA_SECURE_PORT, FOREBAY_KAFKA_THREE_PORT, FOREBAY_S3_PORT"
    fi
    echo "$port" >"$dir/port"
    return
  fi
  # Beginning anywhere, so that two folders of instances seldom race for the same ports.
  for ((attempt = 0; attempt < 200; attempt++)); do
    port=$((PORTS_FIRST + RANDOM % ((PORTS_LAST - PORTS_FIRST) / PORTS_PER_INSTANCE) * PORTS_PER_INSTANCE))
    if ! grep -qsx "$port" "$STACK_RUN"/*/*/port && ! busy_port "$port" >/dev/null; then
      echo "$port" >"$dir/port"
      return
    fi
  done
  fail "found no $PORTS_PER_INSTANCE free ports in a row within $PORTS_FIRST..$PORTS_LAST"
}

# Prints the first port of a block that somebody listens on; fails if all are free.
busy_port() { # FIRST
  local port
  for ((port = $1; port < $1 + PORTS_PER_INSTANCE; port++)); do
    if port_accepts "$port"; then
      echo "$port"
      return
    fi
  done
  return 1
}

port_accepts() { # PORT
  (: <"/dev/tcp/$HOST/$1") 2>/dev/null
}

# Starts COMMAND detached, in a session of its own, so that a Ctrl-C in the terminal does not reach it.
instance_spawn() { # DIR COMMAND...
  local dir=$1 pid
  shift
  if [ -f "$dir/log" ]; then mv "$dir/log" "$dir/log.previous"; fi
  # setsid does not fork here (a background job is no group leader), so $! is the server's own pid.
  (cd "$dir" && close_locks && exec setsid "$@" >"$dir/log" 2>&1 </dev/null) &
  pid=$!
  echo "$pid $(process_started "$pid")" >"$dir/pid"
}

# Returns 0 once COMMAND does, 1 if a process ends or the time is over before.
instance_await() { # DIR SECONDS COMMAND...
  local dir=$1 deadline=$((SECONDS + $2))
  shift 2
  while [ "$SECONDS" -lt "$deadline" ]; do
    instance_runs "$dir" || return 1
    if "$@" 2>>"$dir/not-ready"; then
      rm -f "$dir/not-ready"
      return 0
    fi
    sleep 0.1
  done
  return 1
}

# Prints the ends of its processes' logs.
instance_tail() { # DIR
  local node
  while read -r node; do tail -v -n 20 "$node/log"; done < <(instance_nodes "$1")
}

# SIGTERM to all of its processes, and SIGKILL when the grace is over (0: at once). Returns when they are gone.
instance_stop() { # DIR GRACE_SECONDS
  local deadline=$((SECONDS + $2)) node pids
  # Splitting into words is what makes arguments of them.
  # shellcheck disable=SC2086
  if [ "$2" -ne 0 ] && pids=$(instance_pids "$1"); then kill $pids 2>/dev/null || true; fi
  while read -r node; do process_end "$node" "$deadline"; done < <(instance_nodes "$1")
}

process_end() { # DIR DEADLINE
  local dir=$1 deadline=$2 pid
  if pid=$(instance_pid "$dir"); then
    while instance_pid "$dir" >/dev/null; do
      [ "$SECONDS" -lt "$deadline" ] || kill -9 "$pid" 2>/dev/null || true
      # Only the kernel can hold it then, say in a write to a disk that hangs.
      [ "$SECONDS" -lt $((deadline + TIMEOUT_SECONDS)) ] || fail "process $pid of $dir does not end, not even after SIGKILL"
      sleep 0.05
    done
  fi
  rm -f "$dir/pid"
}

# Runs COMMAND in a subshell while no other `stack` runs one with the same PATH. The lock is the kernel's: it ends with its
# holder, however that ends.
instance_locked() ( # PATH COMMAND...
  lock=$1.lock
  shift
  mkdir -p "$(dirname "$lock")"
  exec {fd}>"$lock"
  LOCKS+=("$fd")
  # Twice the time-out: the holder may be starting the same instance, after having waited for an install.
  flock -w $((2 * TIMEOUT_SECONDS)) "$fd" || fail "another run of stack holds $lock since $((2 * TIMEOUT_SECONDS)) s"
  "$@"
)

LOCKS=()

# A server must not inherit locks: it would hold them for its whole life.
close_locks() {
  local fd
  for fd in "${LOCKS[@]}"; do exec {fd}>&-; done
}
