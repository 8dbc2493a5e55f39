# shellcheck shell=bash
#
# Apache Kafka in KRaft mode, one node. Sourced by `stack`.
#
# Ports: PORT for clients, PORT+1 for the controller.

KAFKA_VERSION=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$STACK/kafka/pom.xml")
# Another pom is another folder: running brokers keep the files that they were started from.
KAFKA_HOME=$STACK_HOME/kafka-$KAFKA_VERSION-$(sha256sum <"$STACK/kafka/pom.xml" | cut -c 1-8)
readonly KAFKA_VERSION KAFKA_HOME

# For short tests: little memory, and no time spent on optimising code that runs for seconds. A benchmark wants
# FOREBAY_KAFKA_JVM="-Xmx2g -XX:+UseG1GC" or the like.
readonly KAFKA_JVM_OF_TESTS="-Xms64m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"

kafka_port_main() { echo "${FOREBAY_KAFKA_PORT:-19092}"; }

kafka_grace_seconds() { echo 15; }

kafka_forget() { :; }

kafka_install() {
  local archive
  [ -f "$KAFKA_HOME/installed" ] || kafka_download
  archive=$(kafka_class_archive)
  [ -f "$archive" ] || kafka_archive_classes "$archive"
}

kafka_download() {
  local attempt
  command -v mvn >/dev/null || fail "kafka is downloaded with Maven, which is missing; \`scripts/bootstrap.sh\` installs it"
  say "installing Kafka $KAFKA_VERSION into $KAFKA_HOME"
  mkdir -p "$KAFKA_HOME"
  for attempt in 1 2 3; do
    # Maven keeps what it got, so a repetition after a network error goes on where the last one stopped.
    if mvn --batch-mode --file "$STACK/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$KAFKA_HOME/lib" >"$KAFKA_HOME/maven.log" 2>&1; then break; fi
    [ "$attempt" -lt 3 ] ||
      fail "Maven could not download Kafka $KAFKA_VERSION: $(grep -m 3 ERROR "$KAFKA_HOME/maven.log"); all of it: $KAFKA_HOME/maven.log"
  done
  touch "$KAFKA_HOME/installed"
}

# Prints the archive's path, which names the Java that can read it: only the one that wrote it.
kafka_class_archive() {
  local version
  version=$("$(kafka_java)" -version 2>&1) ||
    fail "kafka needs Java 17 or newer and found none that runs; \`scripts/bootstrap.sh\` installs it"
  echo "$KAFKA_HOME/classes-$(sha256sum <<<"$version" | cut -c 1-8).jsa"
}

# Runs a broker once to archive the classes that it loads: with them every later start takes half as long.
kafka_archive_classes() { # ARCHIVE
  local dir
  dir=$(instance_dir kafka class-archive)
  instance_stop "$dir" 0
  instance_mark "$dir"
  instance_locked "$STACK_RUN/ports" instance_reserve_port "$dir" ''
  KAFKA_JVM_MORE="-XX:ArchiveClassesAtExit=$1" kafka_start "$dir" "$(instance_port "$dir")"
  if instance_await "$dir" "$TIMEOUT_SECONDS" kafka_ready "$dir" "$(instance_port "$dir")"; then
    # Writing the archive is a part of the exit.
    instance_stop "$dir" 60
  else
    tail -n 20 "$dir/log" >&2
    instance_stop "$dir" 0
    fail "Kafka was installed but does not start; the end of its log is above"
  fi
  rm -rf "$dir"
  # A Java that cannot write archives does without: the empty file is no archive, and is not tried again.
  [ -f "$1" ] || touch "$1"
}

kafka_start() { # DIR PORT
  kafka_write_properties "$1" "$2"
  kafka_run "$1"
}

kafka_ready() { # DIR PORT
  grep -q 'Kafka Server started' "$1/log" && port_accepts "$2"
}

kafka_env() { # DIR PORT
  echo "FOREBAY_TEST_KAFKA=$HOST:$2"
}

# Writes DIR/server.properties: the tests' settings, then each FILE, then the instance's own. The last word on a key wins.
kafka_write_properties() { # DIR PORT FILE...
  local dir=$1 port=$2
  shift 2
  [ ! -f "$dir/extra.properties" ] || set -- "$@" "$dir/extra.properties"
  sed -e "s|@HOST@|$HOST|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$((port + 1))|g" \
    -e "s|@SASL_PORT@|$((port + 2))|g" -e "s|@MTLS_PORT@|$((port + 3))|g" -e "s|@DIR@|$dir|g" \
    "$STACK/kafka/server.properties" "$@" >"$dir/server.properties"
}

# Formats the data folder if it is new, and starts the broker.
kafka_run() { # DIR FORMAT_ARGUMENTS...
  local dir=$1 java archive
  shift
  archive=$(kafka_class_archive)
  # Splitting into words is what turns flags in a string into arguments.
  # shellcheck disable=SC2206
  java=("$(kafka_java)" ${FOREBAY_KAFKA_JVM:-$KAFKA_JVM_OF_TESTS} ${KAFKA_JVM_MORE:-} -XX:-UsePerfData
    -cp "$KAFKA_HOME/lib/*" "-Dlog4j2.configurationFile=$STACK/kafka/log4j2.xml")
  if [ -s "$archive" ]; then
    java+=("-XX:SharedArchiveFile=$archive" -Xlog:cds=off -Xlog:cds+dynamic=off)
  fi
  # Written last by the formatting: what a crash left half-done is formatted again.
  if [ ! -f "$dir/data/meta.properties" ]; then
    "${java[@]}" kafka.tools.StorageTool format --cluster-id "${KAFKA_CLUSTER_ID:-$(kafka_cluster_id)}" --config "$dir/server.properties" \
      "$@" >"$dir/format.log" 2>&1 || fail "Kafka could not format $dir/data: $(head -n 5 "$dir/format.log")"
  fi
  instance_spawn "$dir" "${java[@]}" kafka.Kafka "$dir/server.properties"
}

# Kafka's command line tools, by the names of its distribution, which Maven does not have, or by their classes.
kafka_tool() { # NAME ARGUMENTS...
  local class package=org.apache.kafka.tools
  case ${1:-} in
    kafka-acls.sh) class=$package.AclCommand ;;
    kafka-configs.sh) class=kafka.admin.ConfigCommand ;;
    kafka-consumer-groups.sh) class=$package.consumer.group.ConsumerGroupCommand ;;
    kafka-topics.sh) class=$package.TopicCommand ;;
    *.*.*) class=$1 ;;
    *) fail "tool: name kafka-acls.sh, kafka-configs.sh, kafka-consumer-groups.sh, kafka-topics.sh, or a class" ;;
  esac
  shift
  kafka_install
  "$(kafka_java)" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -cp "$KAFKA_HOME/lib/*" \
    "-Dlog4j2.configurationFile=$STACK/kafka/log4j2.xml" "$class" "$@"
}

kafka_java() { echo "${JAVA_HOME:+$JAVA_HOME/bin/}java"; }

# 16 random bytes in Kafka's own base64, which has no characters that mean something in a path, and no leading dash here.
kafka_cluster_id() {
  printf 'F%s' "$(head -c 32 /dev/urandom | base64 -w0 | tr -dc 'A-Za-z0-9' | head -c 20)A"
}
