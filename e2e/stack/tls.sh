# shellcheck shell=bash
#
# Certificates for the servers of an instance. Sourced by `stack`.

# Makes in a folder: ca; server and client, signed by it; stranger, an authority that signed nothing. NAME.pem and NAME.key of each.
tls_make() { # DIR
  command -v openssl >/dev/null || fail "certificates need the openssl command; \`scripts/bootstrap.sh\` installs it"
  mkdir -p "$1"
  (cd "$1" && tls_ca ca && tls_ca stranger && tls_signed server && tls_signed client) >"$1/log" 2>&1 ||
    fail "openssl could not make the certificates: $(tail -n 3 "$1/log")"
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
