# shellcheck shell=bash
#
# The broker of kafka.sh with TLS, SASL and ACLs; listeners and users stand in kafka/secure.properties. Sourced by `stack`.
#
# Ports: PORT PLAINTEXT, PORT+1 controller, PORT+2 SASL_SSL, PORT+3 SSL with client certificates.

kafka_secure_port_main() { echo "${FOREBAY_KAFKA_SECURE_PORT:-19192}"; }

kafka_secure_grace_seconds() { kafka_grace_seconds; }

kafka_secure_forget() { :; }

kafka_secure_install() { kafka_install; }

kafka_secure_start() { # DIR PORT
  local user mechanism scram=()
  [ -f "$1/tls/server.keystore.pem" ] || kafka_secure_make_certificates "$1/tls"
  kafka_write_properties "$1" "$2" "$STACK/kafka/secure.properties"
  for user in admin alice; do
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
      scram+=(--add-scram "$mechanism=[name=$user,password=$user-secret]")
    done
  done
  kafka_run "$1" "${scram[@]}"
}

kafka_secure_ready() { # DIR PORT
  kafka_ready "$1" "$2" && port_accepts $(($2 + 2)) && port_accepts $(($2 + 3))
}

# FOREBAY_TEST_KAFKA_TLS is a folder: ca.pem; client.pem and client.key, signed by it; stranger.pem, a CA that signed nothing.
kafka_secure_env() { # DIR PORT
  echo "FOREBAY_TEST_KAFKA_SECURE=$HOST:$2"
  echo "FOREBAY_TEST_KAFKA_SASL_SSL=$HOST:$(($2 + 2))"
  echo "FOREBAY_TEST_KAFKA_MTLS=$HOST:$(($2 + 3))"
  echo "FOREBAY_TEST_KAFKA_TLS=$1/tls"
}

kafka_secure_make_certificates() { # TLS_DIR
  tls_make "$1"
  # Kafka reads key and certificate from one file, the key as PKCS #8.
  cat "$1/server.key" "$1/server.pem" >"$1/server.keystore.pem"
}
