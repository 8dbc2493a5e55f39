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
  [ -f "$1/tls/ready" ] || kafka_secure_make_certificates "$1/tls"
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
  command -v openssl >/dev/null || fail "kafka-secure needs the openssl command; \`scripts/bootstrap.sh\` installs it"
  mkdir -p "$1"
  # Kafka reads key and certificate from one file, the key as PKCS #8.
  (
    cd "$1" && tls_ca ca && tls_ca stranger && tls_signed server && tls_signed client &&
      cat server.key server.pem >server.keystore.pem && touch ready
  ) >"$1/log" 2>&1 || fail "openssl could not make the certificates: $(tail -n 3 "$1/log")"
}

# Ten years: as long as anybody keeps an instance's data.
readonly TLS_DAYS=3650

tls_ca() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$TLS_DAYS" \
    -keyout "$1.key" -out "$1.pem" -subj "/CN=forebay test $1"
}

tls_signed() { # NAME
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" &&
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$TLS_DAYS" -out "$1.pem" \
      -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$HOST")
}
