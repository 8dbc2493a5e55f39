# shellcheck shell=bash
#
# Three nodes of kafka.sh that are one cluster: topics have three replicas, two of which have what is acknowledged. Sourced by `stack`.
#
# Ports: node N of 1 to 3 has PORT+2N-2 for clients, and the next one for the controllers.

kafka_three_port_main() { echo "${FOREBAY_KAFKA_THREE_PORT:-19292}"; }

kafka_three_grace_seconds() { kafka_grace_seconds; }

kafka_three_forget() { :; }

kafka_three_install() { kafka_install; }

# Starts those nodes that do not run.
kafka_three_start() { # DIR PORT
  local number node voters
  mkdir -p "$1"/node-{1,2,3}/data
  [ -s "$1/cluster-id" ] || kafka_cluster_id >"$1/cluster-id"
  voters=1@127.0.0.1:$(($2 + 1)),2@127.0.0.1:$(($2 + 3)),3@127.0.0.1:$(($2 + 5))
  for number in 1 2 3; do
    node=$1/node-$number
    if instance_pid "$node" >/dev/null; then continue; fi
    {
      printf 'node.id=%s\ncontroller.quorum.voters=%s\n' "$number" "$voters"
      cat "$STACK/kafka/three.properties"
      [ ! -f "$1/extra.properties" ] || cat "$1/extra.properties"
    } >"$node/extra.properties"
    kafka_write_properties "$node" "$(kafka_three_port "$2" "$number")"
    KAFKA_CLUSTER_ID=$(cat "$1/cluster-id") KAFKA_JVM_MORE=-Xmx256m kafka_run "$node"
  done
}

kafka_three_ready() { # DIR PORT
  local number
  for number in 1 2 3; do kafka_ready "$1/node-$number" "$(kafka_three_port "$2" "$number")" || return 1; done
}

kafka_three_env() { # DIR PORT
  echo "FOREBAY_TEST_KAFKA_THREE=$HOST:$2,$HOST:$(($2 + 2)),$HOST:$(($2 + 4))"
}

kafka_three_port() { # PORT NUMBER
  echo $(($1 + 2 * ($2 - 1)))
}
